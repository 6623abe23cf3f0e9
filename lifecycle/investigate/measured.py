"""What Prometheus has measured of two times: failures, the stages of a request, and each pod beside the others."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

from hone.evidence.shares import Share
from hone.k8s.planning.prometheus import Access, series_of

from .clues import Clue

STAGES = {"hone_request_seconds": "end to end", "hone_queue_seconds": "waiting", "hone_inference_seconds": "a batch"}
GROWN, STANDS_OUT = 1.2, 1.5
CONFIDENCE = 0.99
FAILURES = 0.5
"""How much a clue failures are at least: some are more than a column that moved by as much."""
PODS = 3
"""Fewer have no others to stand out from."""


Values = dict[str, float]


@dataclass(frozen=True)
class _Watched:
    """A model in a Prometheus, in two times that meet.

    Attributes:
        url, access: of the API.
        name: of the model.
        spans: how long each time is, and the seconds since 1970 at its end.
    """

    url: str
    access: Access
    name: str
    spans: tuple[tuple[str, float], tuple[str, float]]

    def grown(self, metric: str, by: str = "") -> tuple[Values, Values]:
        """Return by how much a counter grew in each time, by the values of a label."""
        before, after = (
            self._asked(f'sum by ({by}) (increase({metric}{{model="{self.name}"}}[{span}]))', at)
            for span, at in self.spans
        )
        return before, after

    def means(self, metric: str, by: str = "") -> tuple[Values, Values]:
        """Return the means of a histogram in each time, by the values of a label."""
        sums, counts = self.grown(f"{metric}_sum", by), self.grown(f"{metric}_count", by)
        before, after = (
            {label: total / count[label] for label, total in one.items() if count.get(label)}
            for one, count in zip(sums, counts, strict=True)
        )
        return before, after

    def _asked(self, query: str, at: float) -> Values:
        found = series_of(self.url, "/api/v1/query", {"query": query, "time": at}, self.access)
        values = {next(iter((one.get("metric") or {}).values()), ""): float(one["value"][1]) for one in found}
        return {label: value for label, value in values.items() if math.isfinite(value)}


def measured(
    url: str, access: Access, name: str, middle_s: float, now_s: float, hours: int
) -> tuple[list[Clue], list[str]]:
    """Return what is other than before, and what isn't.

    Args:
        url, access: of Prometheus' API.
        name: of the model.
        middle_s: seconds since 1970 where one time ends and the other begins.
        now_s: the end.
        hours: of the time before.

    Raises:
        HoneError: it doesn't answer.
    """
    watched = _Watched(url, access, name, ((f"{hours}h", middle_s), (f"{max(60, round(now_s - middle_s))}s", now_s)))
    clues: list[Clue] = []
    same: list[str] = []
    for metric, stage in STAGES.items():
        before, after = (one.get("", 0.0) for one in watched.means(metric))
        told = f"{1e3 * before:.2f} ms before, {1e3 * after:.2f} ms now, on average"
        if before and after > GROWN * before:
            clues.append(Clue("stage", stage, 1 - before / after, told))
        elif before and after:
            same.append(f"{stage}: {told}")
    known, live = (_failed(one) for one in watched.grown("hone_requests_total", "status"))
    told = f"{known.point:.2%} of the requests before, {live.point:.2%} now"
    if live.of and (least := live.low(CONFIDENCE) - known.high(CONFIDENCE)) > 0:
        clues.append(Clue("failure", "5xx", max(FAILURES, least), told))
    elif live.of:
        same.append(f"failures: {told}")
    clues += _slow(watched.means("hone_request_seconds", "instance")[1])
    return clues, same


def _failed(statuses: Values) -> Share:
    failed = sum(count for status, count in statuses.items() if status >= "5")
    return Share(round(failed), round(sum(statuses.values())))


def _slow(pods: Values) -> list[Clue]:
    """Pods that take much longer than the others."""
    found = []
    for pod, mean in pods.items():
        others = [value for name, value in pods.items() if name != pod]
        if len(pods) >= PODS and (usual := statistics.median(others)) and mean > STANDS_OUT * usual:
            words = f"{1e3 * mean:.2f} ms on average, the others {1e3 * usual:.2f} ms"
            found.append(Clue("pod", pod, 1 - usual / mean, words))
    return found
