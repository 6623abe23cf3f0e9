"""A trial of a candidate on this machine: its service is started, loaded and stopped again."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from hone.capacity import Slo
from hone.errors import HoneError
from hone.plan import Plan
from hone.services.launch import running

from ..capacity.runs import TRIES
from ..load.run import calls_for, run_load
from ..load.target import Access, Target, ask, require_ready
from ..load.workload import Workload
from ..measures import measure, outcomes
from ..records import CPU_SHARE, LATE_MS, LATE_SHARE, Sent
from ..scenarios import Scenario
from ..tuned import UNMEASURED, Choice, Cost
from ..usage import listeners, watched
from .elimination import Visit
from .ramp import PEAK, Rising

LIFTS = 8
"""Times that the load rises to a higher peak, or again, until it crosses the limit."""

PROBE = Scenario(kind="closed", users=32, duration_s=3.0, warm_up_s=1.0)


@dataclass
class Visits:
    """Makes trials.

    Attributes:
        choices: the candidates.
        slo: the limits.
        rows: in each request.
        most_late: share of the requests before the crossing that may be started late; above it, a run is void.
        plans: by candidate: how it ran the first time, and runs again.
        peaks: by candidate: rate that a rising load ends at.
    """

    choices: list[Choice]
    slo: Slo
    rows: int = 1
    most_late: float = LATE_SHARE
    plans: dict[int, Plan] = field(default_factory=dict)
    peaks: dict[int, float] = field(default_factory=dict)
    _calls: dict[str, Workload] = field(default_factory=dict)

    def know(self, visit: Visit) -> None:
        """Take from an earlier trial what the next one needs."""
        if visit.plan is not None:
            self.plans[visit.candidate] = visit.plan
        if visit.rate is not None:
            self.peaks[visit.candidate] = PEAK * visit.rate

    def __call__(self, candidate: int, seconds: float) -> Visit:
        """Start a candidate's service and raise its load; one that is refused, crashes or can't be measured is out."""
        started = time.monotonic()
        choice, known = self.choices[candidate], candidate in self.plans
        try:
            with running(choice.model, **settings_of(choice, self.plans.get(candidate))) as url:
                target = ask(url, Access(), choice.model)
                cost = None if known and candidate in self.peaks else self._probe(candidate, target)
                rate = self._rise(candidate, target, seconds)
        except HoneError as error:
            took_s = round(time.monotonic() - started, 3)
            return Visit(candidate=candidate, asked_s=seconds, took_s=took_s, out=str(error))
        visit = Visit(
            candidate=candidate, asked_s=seconds, took_s=round(time.monotonic() - started, 3), rate=round(rate, 3),
            cost=cost, plan=None if known else target.plan,
        )  # fmt: skip
        self.know(visit)
        return visit

    def _probe(self, candidate: int, target: Target) -> Cost:
        """Return what the service takes when callers keep it busy; how much it answers is where the load rises to."""
        scenario = PROBE.model_copy(update={"rows": self.rows})
        started = time.monotonic()
        with watched(listeners(target.url)) as usage:
            sent = run_load(target, scenario, self._workload(target))
        elapsed = time.monotonic() - started
        found = measure(sent, scenario)
        if not found["rate"]:
            raise HoneError(f"the service gave no good answer: {', '.join(found['errors_by_kind'])}")
        self.peaks[candidate] = PEAK * found["rate"]
        if "cpu_cores" not in usage:
            raise HoneError("its processes can't be watched; run the search as root here")
        # The generator's own start is in the time that was watched, and not in that of the load.
        cores = usage["cpu_cores"] * elapsed / (scenario.warm_up_s + scenario.duration_s)
        return Cost(cores=round(cores, 3), memory_mb=usage["rss_mb"])

    def _rise(self, candidate: int, target: Target, seconds: float) -> float:
        """Return the rate at which the limit is crossed."""
        problems: list[str] = []
        for _ in range(LIFTS):
            seen, void = self._rising(target, seconds, self.peaks[candidate])
            if seen.failed[-1]:  # overloaded, or dead
                require_ready(target.url, target.access)
            if not void and seen.is_too_low(self.slo):
                self.peaks[candidate] *= 2
                continue
            if not void and not seen.is_nowhere(self.slo):
                return seen.rate(seen.crossed_s(self.slo))
            problems.append(f"{UNMEASURED}{void}" if void else f"misses {self.slo.words} at any rate")
            if len(problems) == TRIES:
                raise HoneError(problems[-1])
        raise HoneError(f"{UNMEASURED}no rate is too high for it here")

    def _rising(self, target: Target, seconds: float, peak: float) -> tuple[Rising, str]:
        """Raise the load once; return what was seen, and why it is void."""
        scenario = Scenario(
            rate=peak / 2, arrival="ramp", rows=self.rows, duration_s=seconds, warm_up_s=0.0, seed=round(seconds)
        )
        sent = run_load(target, scenario, self._workload(target))
        latencies, failed = outcomes(sent, scenario)
        order = sent.intended.argsort(kind="stable")
        seen = Rising(sent.intended[order], latencies, failed, seconds, peak)
        return seen, self._why_void(sent, seen.crossed_s(self.slo))

    def _why_void(self, sent: Sent, crossed_s: float) -> str:
        """Return why the crossing may be the generator's own; after it, an overloaded host makes it late."""
        before = sent.intended <= crossed_s
        late = (sent.started - sent.intended)[before] * 1e3 > LATE_MS
        share = float(late.mean()) if len(late) else 0.0
        if share > self.most_late:
            return f"the generator started {share:.1%} of the requests over {LATE_MS:g} ms late"
        if sent.cpu_share > CPU_SHARE:
            return f"the generator used {sent.cpu_share:.0%} of a core"
        return ""

    def _workload(self, target: Target) -> Workload:
        if target.tag not in self._calls:
            self._calls[target.tag] = calls_for(target, self.rows)
        return self._calls[target.tag]


def settings_of(choice: Choice, plan: Plan | None) -> dict[str, Any]:
    """Return what a service is started with: the settings, or the plan that they gave the first time."""
    if plan is None:
        given = choice.model_dump(exclude={"model"})
        return {**{name: value for name, value in given.items() if value}, "plan": ""}
    same = {name: getattr(plan, name) for name in ("workers", "threads", "in_flight", "max_batch_rows")}
    return {**same, "plan": plan.model_dump_json()}
