"""Runs at one rate each: what loads the service, and the trial that is made of what it saw."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from pydantic import Field

from hone.capacity import Slo, Trial
from hone.errors import HoneError
from hone.evidence.shares import Share, pooled, share_failed, share_over
from hone.evidence.warmup import warm_up
from hone.records import Record, Verdict

CONFIDENCE = 0.99
"""Of the verdict on a rate, as in MLPerf Inference."""

LOOKS = 6
"""Times that the runs at a rate are looked at, at most: each look has its part of the doubt (Bonferroni)."""

TRIES = 3
"""Runs at a rate after which the generator is known not to hold it."""


class Void(Record):
    """A run whose generator was too busy or late: nothing that it saw is a figure of the service."""

    rate: float = Field(description="Requests meant to arrive per second.")
    void: str = Field(description="What the generator did, in words.")
    asked_s: float = Field(description="Seconds that were asked for.")
    took_s: float = Field(description="All of it, with its start.")


class GeneratorLimitError(HoneError):
    """The generator can't hold a rate: run after run was void."""

    def __init__(self, void: Void) -> None:
        super().__init__(f"the load generator was the limit: at {void.rate:,.1f} requests/s {void.void}")
        self.void = void


@dataclass(frozen=True)
class Observed:
    """What one run of an open loop saw, in the order in which requests were meant to start.

    Attributes:
        intended: [requests] seconds from the start of what counts.
        latencies_ms: [requests] from then to the answer.
        failed: [requests] whether there was no good answer.
        late_share: requests that the generator itself started late.
        void: why latencies are partly the generator's own; empty: they aren't.
        seconds: that count; all of it with its start took `took_s`.
        cpu_cores, rss_mb: of the service; None: it is elsewhere.
    """

    intended: np.ndarray
    latencies_ms: np.ndarray
    failed: np.ndarray
    seconds: float
    took_s: float
    late_share: float = 0.0
    void: str = ""
    cpu_cores: float | None = None
    rss_mb: float | None = None


class Load(Protocol):
    """Loads a service, or what stands for one."""

    def __call__(self, rate: float, seconds: float, seed: int) -> Observed:
        """Send requests at Poisson times at a rate, in requests/s; the same seed gives the same times.

        Raises:
            HoneError: the service is gone, or the generator failed.
        """


@dataclass
class Runs:
    """Makes a trial of each run, and keeps all of them; a void run is repeated.

    Attributes:
        load: the service.
        slo: the limits.
        earlier: runs of a search that was ended early, in their order; they stand in for runs that would be the same.
        on_run: told of each run, and how many seconds are left as it seems.
        made: all runs so far, in their order.
    """

    load: Load
    slo: Slo
    earlier: Sequence[Trial | Void] = ()
    on_run: Callable[[Trial | Void, float], None] = lambda run, left_s: None
    made: list[Trial | Void] = field(default_factory=list)

    @property
    def done(self) -> list[Trial]:
        """All that says something of the service."""
        return [run for run in self.made if isinstance(run, Trial)]

    @property
    def spent_s(self) -> float:
        return sum(run.took_s for run in self.made)

    def __call__(self, rate: float, seconds: float, left_s: float = 0.0) -> Trial:
        """Return what a run at so many requests per second found.

        Raises:
            GeneratorLimitError: it was void each time that there was time for it.
        """
        tries = 0
        while True:
            run = self._earlier(rate, seconds) or self._run(rate, seconds)
            self.made.append(run)
            self.on_run(run, left_s)
            if isinstance(run, Trial):
                return run
            tries, left_s = tries + 1, left_s - run.took_s
            if tries == TRIES or left_s < run.took_s:
                raise GeneratorLimitError(run)

    def _run(self, rate: float, seconds: float) -> Trial | Void:
        self.earlier = ()
        seen = self.load(rate, seconds, len(self.made) + 1)
        if seen.void:
            return Void(rate=rate, void=seen.void, asked_s=seconds, took_s=round(seen.took_s, 3))
        return self._trial(rate, seen, seconds)

    def _earlier(self, rate: float, seconds: float) -> Trial | Void | None:
        place = len(self.made)
        if place >= len(self.earlier):
            return None
        kept = self.earlier[place]
        return kept if (kept.rate, kept.asked_s) == (rate, seconds) else None

    def _trial(self, rate: float, seen: Observed, asked_s: float) -> Trial:
        settled = warm_up(seen.latencies_ms)
        settled_s = float(seen.intended[settled]) if settled else 0.0
        # Of all runs so far: one that began with a few slow requests by chance would leave out just these.
        cut_s = min(statistics.median([*(trial.settled_s for trial in self.done), settled_s]), seen.seconds / 2)
        counted = seen.intended >= min(cut_s, seen.intended[-1])
        latencies, failed = seen.latencies_ms[counted], seen.failed[counted]
        over = failed | (latencies > self.slo.limit_ms)
        slow, broken = share_over(over, latencies, self.slo.allowed), share_failed(failed)
        good = latencies[~failed] if not failed.all() else latencies
        p50, p95, p99, p999 = (round(float(v), 4) for v in np.percentile(good, [50, 95, 99, 99.9]))
        span = seen.seconds - cut_s
        found = Trial(
            rate=rate,
            answered=round(float((~failed).sum()) / span, 3),
            p50_ms=p50,
            p95_ms=p95,
            p99_ms=p99,
            p999_ms=p999,
            mean_ms=round(float(good.mean()), 4),
            error_share=round(broken.point, 5),
            late_share=seen.late_share,
            cpu_cores=seen.cpu_cores,
            rss_mb=seen.rss_mb,
            passed=False,
            duration_s=round(span, 3),
            warm_up_s=round(cut_s, 3),
            settled_s=round(settled_s, 3),
            took_s=round(seen.took_s, 3),
            asked_s=asked_s,
            requests=slow.of,
            over=slow.count,
            effect=round(slow.effect, 3),
            failed=broken.count,
            failed_effect=round(broken.effect, 3),
            goodput=round(float((~over).sum()) / span, 3),
        )
        verdict = judge([found], self.slo)
        within = slow.point <= self.slo.allowed and broken.point <= self.slo.errors
        return found.model_copy(
            update={"verdict": verdict, "passed": verdict == "met" or (verdict == "undecided" and within)}
        )


def slow_share(trials: Sequence[Trial]) -> Share:
    """Return the share of requests over the limit, or failed, in trials at the same rate."""
    return pooled([Share(trial.over, trial.requests, trial.effect) for trial in trials])


def failed_share(trials: Sequence[Trial]) -> Share:
    return pooled([Share(trial.failed, trial.requests, trial.failed_effect) for trial in trials])


def judge(trials: Sequence[Trial], slo: Slo, looks: int = 1) -> Verdict:
    """Return whether trials at the same rate meet the limits.

    A request that failed is over the latency limit, too, so the bound of that share is also one of the errors. Against
    their own limit, often far smaller, errors are judged by the bound when they miss it and by the share itself when
    they don't: to prove 0.1 % takes thousands of requests without a single error.

    Args:
        trials: at least one.
        slo: the limits.
        looks: how often the trials at this rate are looked at, at most.
    """
    confidence = 1 - (1 - CONFIDENCE) / looks
    slow, failed = slow_share(trials), failed_share(trials)
    verdict = slow.verdict(slo.allowed, confidence)
    if failed.verdict(slo.errors, confidence) == "missed":
        return "missed"
    return "undecided" if verdict == "met" and failed.point > slo.errors else verdict
