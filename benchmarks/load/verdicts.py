"""Verdicts of a load test: whether a limit holds beyond doubt, or how many requests would tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from hone.evidence.bounds import CONFIDENCE
from hone.evidence.quantiles import Interval, mean_interval, quantile_interval, ratio
from hone.evidence.shares import Share, share_failed, share_over
from hone.records import Verdict

from ..records import Check, Second
from .limits import Baseline, Limits, compare, judge

ALLOWED = {"p50_ms": 0.5, "p95_ms": 0.05, "p99_ms": 0.01}
"""Share of the requests that may be over a percentile's limit."""


def judged(
    measured: dict[str, Any], latencies_ms: np.ndarray, failed: np.ndarray, limits: Limits, baseline: Baseline | None
) -> dict[str, Any]:
    """Return what the figures of a run are between, and its checks, as fields of a report.

    Args:
        measured: of `benchmarks.measures.measure`.
        latencies_ms, failed: of `benchmarks.measures.outcomes`.
        limits: what the run is judged by.
        baseline: another run that it is compared with.
    """
    between = intervals(latencies_ms, failed, measured["timeline"])
    checks = [*judge(measured, limits), *(compare(measured, baseline) if baseline else [])]
    against = Against(baseline, between) if baseline else None
    return {"intervals": between, "checks": decide(checks, latencies_ms, failed, limits, against)}


def intervals(latencies_ms: np.ndarray, failed: np.ndarray, timeline: Sequence[Second]) -> dict[str, Interval]:
    """Return what the figures of a run are between, with 95 % confidence each.

    Args:
        latencies_ms: [requests] in the order in which they were meant to start.
        failed: [requests] whether there was no good answer.
        timeline: the same by the second; the last one, which may be a part, is left out.
    """
    good = latencies_ms[~failed] if not failed.all() else latencies_ms
    found = {name: quantile_interval(good, 1 - allowed, CONFIDENCE) for name, allowed in ALLOWED.items()}
    answered = [float(second.requests - second.errors) for second in timeline[:-1]]
    return {**found, "rate": mean_interval(answered, CONFIDENCE)} if len(answered) > 1 else found


def decide(
    checks: Sequence[Check], latencies_ms: np.ndarray, failed: np.ndarray, limits: Limits, against: Against | None
) -> list[Check]:
    """Return the checks with their verdicts, at 95 % confidence each.

    An error limit that wasn't asked for is judged by the figure, as long as bounds don't decide.

    Args:
        checks: by the figures.
        latencies_ms, failed: [requests] in the order in which they were meant to start.
        limits: what the run is judged by.
        against: the baseline with what this run's figures are between; None: there is no baseline.
    """
    good = latencies_ms[~failed] if not failed.all() else latencies_ms
    decided = []
    for check in checks:
        if check.against == "baseline":
            assert against is not None
            verdict, wanted = against.verdict(check, len(good))
        elif check.name == "error_share":
            verdict, wanted = _of_share(share_failed(failed), check.limit)
            if limits.errors is None and verdict == "undecided":
                decided.append(check)
                continue
        else:
            allowed = ALLOWED[check.name]
            verdict, wanted = _of_share(share_over(good > check.limit, good, allowed), allowed)
        decided.append(check.model_copy(update={"verdict": verdict, "requests_to_decide": wanted}))
    return decided


def _of_share(share: Share, allowed: float) -> tuple[Verdict, int | None]:
    verdict = share.verdict(allowed, CONFIDENCE)
    return verdict, share.requests_to_decide(allowed, CONFIDENCE) if verdict == "undecided" else None


class Against:
    """A baseline, and what this run's figures are between.

    Args:
        baseline: one from before there were intervals is taken for exact.
        ours: by figure.
    """

    def __init__(self, baseline: Baseline, ours: dict[str, Interval]) -> None:
        self._baseline = baseline
        self._ours = ours

    def verdict(self, check: Check, requests: int) -> tuple[Verdict, int | None]:
        """Return whether a figure is worse than the baseline's by more than the tolerance, and how many requests would
        tell: so many more that the interval becomes as narrow as the figure is far from the limit."""
        theirs = getattr(self._baseline.report, check.name)
        least, tolerance = check.name == "rate", self._baseline.tolerance
        if (least and tolerance >= 1) or not theirs or not check.measured:
            return ("met" if check.met else "missed"), None
        exact: Interval = (theirs, theirs)
        low, middle, high = ratio(
            (check.measured, self._ours.get(check.name, (check.measured, check.measured))),
            (theirs, self._baseline.report.intervals.get(check.name, exact)),
        )
        limit = 1 - tolerance if least else 1 + tolerance
        if (low >= limit) if least else (high <= limit):
            return "met", None
        if (high < limit) if least else (low > limit):
            return "missed", None
        apart = abs(math.log(middle / limit))
        side = math.log(high / middle) if middle < limit else math.log(middle / low)
        return "undecided", math.ceil(requests * (side / apart) ** 2) if apart > side / 100 else None
