"""What models have done since the server started: the figures of Triton's statistics extension, of all its workers.

A worker adds up its own in plain numbers. Whenever its metrics are brought up to date it writes the sums to a file in
the folder that the workers of a server share. Who is asked adds up the files; a worker that died leaves its own behind.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from ..batching.running import BatchTimes
from .sums import SharedSums

DURATIONS = ("success", "fail", "queue", "cache_hit", "cache_miss")
COMPUTED = ("compute_input", "compute_infer", "compute_output")
"""Joining requests to one batch, running it, taking the answers apart."""

NANOSECONDS = 1e9


class Statistics:
    """What one version of a model has done.

    Attributes:
        last: when a request was answered last, in seconds since the epoch.
        durations: by kind how often, and seconds together.
        sizes: by the rows of a batch how many ran, and the seconds that they took to be joined, to run and to be taken
            apart.
        shared: the same of the requests in batches beside the first: in a batch of ten, each has waited for all of it.
    """

    def __init__(self) -> None:
        self.last = 0.0
        self.durations: dict[str, list[float]] = {kind: [0, 0.0] for kind in DURATIONS}
        self.sizes: dict[int, list[float]] = {}
        self.shared: list[float] = [0, 0.0, 0.0, 0.0]

    def add(self, kind: str, count: int, seconds: float) -> None:
        """Count what was summed up elsewhere, of a kind in DURATIONS."""
        entry = self.durations[kind]
        entry[0] += count
        entry[1] += seconds

    def requests(self, answered: int, seconds: float, failed: int, failed_seconds: float) -> None:
        """Count requests that ended just now, and those of them that failed."""
        self.add("success", answered - failed, seconds - failed_seconds)
        self.add("fail", failed, failed_seconds)
        self.last = time.time()

    def batch(self, times: BatchTimes) -> None:
        """Count a batch that succeeded."""
        size = self.sizes.get(times.rows)
        if size is None:
            size = self.sizes[times.rows] = [0, 0.0, 0.0, 0.0]
        size[0] += 1
        others = len(times.queued) - 1
        if not others:
            size[2] += times.inference
            return
        joining, splitting = times.joining, times.splitting
        running = times.inference - joining - splitting
        size[1] += joining
        size[2] += running
        size[3] += splitting
        shared = self.shared
        shared[0] += others
        shared[1] += others * joining
        shared[2] += others * running
        shared[3] += others * splitting

    def solo(self, seconds: np.ndarray, rows: np.ndarray) -> None:
        """Count batches of one request each, which waited for nothing: seconds [n] and rows [n] of them."""
        for size in np.unique(rows).tolist():
            chosen = seconds[rows == size]
            entry = self.sizes.setdefault(size, [0, 0.0, 0.0, 0.0])
            entry[0] += len(chosen)
            entry[2] += float(chosen.sum())

    def plain(self) -> dict[str, Any]:
        """Return it as `include` takes it, for a file."""
        return {"last": self.last, "durations": self.durations, "shared": self.shared, "sizes": self.sizes}

    def include(self, other: dict[str, Any]) -> None:
        """Add what another worker counted of the same model."""
        self.last = max(self.last, other["last"])
        _add(self.shared, other["shared"])
        for kind, sums in other["durations"].items():
            _add(self.durations[kind], sums)
        for rows, sums in other["sizes"].items():
            _add(self.sizes.setdefault(int(rows), [0, 0.0, 0.0, 0.0]), sums)

    def described(self) -> dict[str, Any]:
        """Return the figures under the names of the statistics extension, times in nanoseconds."""
        each = {kind: _duration(*sums) for kind, sums in self.durations.items()}
        computed = [sum(column) for column in zip(self.shared, *self.sizes.values(), strict=True)]
        return {
            "last_inference": int(self.last * 1e3),
            "inference_count": int(sum(rows * sums[0] for rows, sums in self.sizes.items())),
            "execution_count": int(sum(sums[0] for sums in self.sizes.values())),
            "inference_stats": {**each, **_computed(computed)},
            "batch_stats": [{"batch_size": rows, **_computed(sums)} for rows, sums in sorted(self.sizes.items())],
        }


def _add(sums: list[float], others: list[float]) -> None:
    for place, value in enumerate(others):
        sums[place] += value


def _duration(count: float, seconds: float) -> dict[str, int]:
    return {"count": int(count), "ns": round(seconds * NANOSECONDS)}


def _computed(sums: list[float]) -> dict[str, dict[str, int]]:
    return {kind: _duration(sums[0], seconds) for kind, seconds in zip(COMPUTED, sums[1:], strict=True)}


class SharedStatistics:
    """Statistics of every model of a server: this worker's, and on demand those of all workers together.

    Args:
        folder: that the workers of the server share; None: there is one worker.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._sums = SharedSums(folder, "statistics")
        self._models: dict[str, Statistics] = {}
        self._published: dict[str, float] = {}

    def of(self, tag: str) -> Statistics:
        """Return what this worker counts of a model; one that is loaded again goes on where it was."""
        return self._models.setdefault(tag, Statistics())

    def total(self, tag: str) -> dict[str, Any]:
        """Return what all workers have counted of a model, under the names of the statistics extension."""
        found = Statistics()
        for models in self._sums.others():
            if tag in models:
                found.include(models[tag])
        found.include(self.of(tag).plain())
        return found.described()

    def publish(self) -> None:
        """Write this worker's sums for the others, if something came since the last time."""
        newest = {tag: statistics.last for tag, statistics in self._models.items()}
        if not self._sums.shared or newest == self._published:
            return
        if self._sums.publish({tag: statistics.plain() for tag, statistics in self._models.items()}):
            self._published = newest
