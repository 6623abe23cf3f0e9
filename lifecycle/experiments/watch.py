"""Watching an experiment: guardrails end it, services that were started anew get their split back, a bandit's weights
follow.

One look does everything once; killed at any moment, the next look goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

from hone.errors import HoneError
from hone.evidence.arms.bandit import thompson
from hone.evidence.arms.sequence import FEWEST
from hone.services.arms.split import WHOLE
from hone.services.status.asking import Access
from hone.services.status.splitting import RemoteSplit

from .begin import noted
from .counts import Counts
from .end import end
from .judge import Judge
from .metrics import ExperimentError
from .replicas import Replicas
from .report import Report
from .state import CONTROL, Experiment, Stage, known

BROKEN, UNDECIDED = 3, 4


class EndedError(ExperimentError):
    """It has ended; exit code 0: decided, 3: a guardrail was broken, 4: its time was over without a decision."""


JUMP_S = 30.0
"""That the clock may be off from the time that has passed, before it is said to have jumped."""
CHANGES = 50
"""Of a bandit's weights, over the planned requests."""


def look(experiment: Experiment, access: Access, now: float, *, mending: bool = False) -> tuple[Report, Judge]:
    """Ask the services and return what is known.

    Args:
        now: seconds since 1970.
        mending: give services that lost the split theirs again.

    Raises:
        HoneError: what is known can't be read.
    """
    notes: list[str] = []
    if now < experiment.seen_at - JUMP_S:
        notes.append(f"the clock is {experiment.seen_at - now:,.0f} s before the last look: it was set back")
    counts, seen = Counts(experiment), {}
    replicas = Replicas(experiment, access)
    try:
        for url, split, found, problem in replicas.looks() if not experiment.ended else ():
            if found is not None and replicas.is_ours(found["split"]):
                seen[url] = found["arms"]
            if problem and mending and found is not None and not replicas.is_anothers(found["split"]):
                problem += f", {_mended(replicas, split)}"
            if problem:
                notes.append(problem if found is None else f"{url}: {problem}")
    except HoneError as error:  # the name of the services has no address
        notes.append(str(error))
    counts.take(seen)
    judge = Judge(experiment, counts, now, notes)
    return judge.report(), judge


def _mended(replicas: Replicas, split: RemoteSplit) -> str:
    """Give a service its split; return what became of it."""
    try:
        replicas.put(split)
    except HoneError as error:
        return f"and doesn't take it: {error}"
    return "and has it again"


@dataclass
class Watcher:
    """Looks at an experiment again and again.

    Args:
        name: of the model.
        access: to the services.
        say: told what happens, in a line.
        deciding: end it when it is decided.
        clock, passed: seconds since 1970, and seconds that only grow.
    """

    name: str
    access: Access
    say: Callable[[str], object]
    deciding: bool = False
    clock: Callable[[], float] = time.time
    passed: Callable[[], float] = time.monotonic
    _last: tuple[float, float] | None = None
    _told: set[str] = field(default_factory=set)

    def look(self) -> Report:
        """Look once, and do what follows from it.

        Raises:
            EndedError: it has ended.
            ExperimentError: there is none that could be watched, or not every service could be told that it has ended.
        """
        experiment = self._timed(known(self.name))
        if experiment.status == "stopping":
            self._end(experiment, experiment.answer, experiment.told, exit_code=experiment.exit_code)
        if experiment.ended:
            raise ExperimentError(f"the A/B test of '{self.name}' has ended: {experiment.told or experiment.answer}")
        if experiment.status != "running":
            raise ExperimentError(
                f"the A/B test of '{self.name}' was not begun whole; hone ab stop {self.name} ends it"
            )
        experiment = self._closed(experiment)
        report, judge = look(experiment, self.access, self.clock(), mending=True)
        for note in report.notes:
            if note not in self._told:
                self.say(note)
        self._told = set(report.notes)
        if report.broken:
            first = report.broken[0]
            why = f"{first.arm} breaks the guardrail {first.metric}: {first.told}"
            self._end(experiment, CONTROL, why, report, BROKEN)
        answer, is_over = report.winner or CONTROL, experiment.lasts_s and report.ran_s >= experiment.lasts_s
        if self.deciding and report.is_decided:
            self._end(experiment, answer, report.told, report)
        if is_over:
            self._end(
                experiment, answer, f"its time is over, {report.told}", report, 0 if report.is_decided else UNDECIDED
            )
        if experiment.bandit and experiment.stages[-1].weights:
            self._weigh(experiment, judge)
        return report

    def _end(
        self, experiment: Experiment, answer: str, why: str, report: Report | None = None, exit_code: int = 0
    ) -> NoReturn:
        """End it, and say so.

        Raises:
            EndedError: it is ended; ExperimentError: not every service could be reached, and the next look goes on.
        """
        end(experiment.model_copy(update={"exit_code": exit_code}), self.access, answer, why, report)
        raise EndedError(f"the A/B test of '{self.name}' is ended, {answer} answers all requests: {why}", exit_code)

    def _timed(self, experiment: Experiment) -> Experiment:
        """Note a jump of the clock: how long an experiment lasts goes by the time that has passed."""
        now, passed = self.clock(), self.passed()
        jumped = 0.0
        if self._last is not None:
            jumped = (now - self._last[0]) - (passed - self._last[1])
        self._last = now, passed
        if abs(jumped) < JUMP_S:
            return experiment.becoming(seen_at=now) if experiment.status == "running" else experiment
        self.say(f"the clock jumped by {jumped:+,.0f} s; answers of that time may count for another hour")
        return experiment.becoming(seen_at=now, jumped_s=experiment.jumped_s + jumped)

    def _closed(self, experiment: Experiment) -> Experiment:
        """Set the weights that were in force when a change of them was interrupted, in every service."""
        if experiment.stages[-1].weights:
            return experiment
        try:
            return self._put(experiment, experiment.weights_now)
        except HoneError as error:
            self.say(f"the weights are not the same in every service, and nothing counts until they are: {error}")
            return experiment

    def _weigh(self, experiment: Experiment, judge: Judge) -> None:
        """Change a bandit's weights, when enough is new since the last change."""
        arms = judge.sums()
        total = sum(float(arm.units) for arm in arms)
        if total < FEWEST * len(arms) or not self._is_due(experiment, total):
            return
        sign = 1 if experiment.metric.better == "higher" else -1
        shares = thompson(arms, sign)
        weights = [round(WHOLE * share, 1) for share in shares]
        weights[weights.index(max(weights))] += WHOLE - sum(weights)
        wanted = tuple(round(weight, 1) for weight in weights)
        if wanted == experiment.weights_now:
            return
        told = ", ".join(f"{name} {weight:g} %" for name, weight in zip(experiment.arms, wanted, strict=True))
        try:
            with noted(experiment, f"weights: {told}"):
                changing = experiment.becoming(stages=(*experiment.stages, Stage(since=self.clock())))
                self._put(changing, wanted)
        except HoneError as error:
            self.say(f"the weights are not changed, and nothing counts until all services have the same: {error}")
            return
        self.say(f"weights: {told}")

    def _is_due(self, experiment: Experiment, total: float) -> bool:
        changed = sum(bool(stage.weights) for stage in experiment.stages)
        return total >= changed * max(FEWEST, experiment.units / CHANGES)

    def _put(self, experiment: Experiment, weights: tuple[float, ...]) -> Experiment:
        """Put weights in force in every service; from the moment that all have them answers count again.

        Raises:
            HoneError: one doesn't take them; nothing counts until it does.
        """
        wanted = experiment.model_copy(
            update={"stages": (*experiment.stages, Stage(since=self.clock(), weights=weights))}
        )
        replicas = Replicas(wanted, self.access)
        for split in replicas.splits().values():
            replicas.put(split)
        after = experiment.becoming(stages=(*experiment.stages, Stage(since=self.clock(), weights=weights)))
        counts = Counts(after)
        counts.take({url: found["arms"] for url, _, found, _ in replicas.looks() if found and found["split"]})
        counts.evidence.begin(weights)
        return after
