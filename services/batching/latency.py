"""What a batch takes, learned while serving: deadlines are judged by it."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

WEIGHT = 0.1
"""Of the newest observation in the running means: about the last twenty batches count."""

MARGIN = 2.0
"""A prediction is the mean plus so many mean deviations: a deadline is promised, not hoped for."""

MOST_DEVIATIONS = 3.0
"""Above the mean that an observation counts for, or twice the mean where that is more. What is far beyond is a stall of
the host, not what a batch takes: it would have the next callers refused, and a runtime that became slower is learned in
some batches more."""

STALE = 64
"""Batches after which what was learned of a size may be out of date."""

LATE_SHARE = 0.0005
"""Of the answers with a deadline that may be late; `Reserve` keeps to it."""

LATE_STEP = 0.02
MOST_RESERVE = 0.5
WAY_BACK = 0.05
"""Of a caller's time that the answer needs from the runtime to the caller."""


@dataclass
class _Running:
    """Exponentially weighted mean and mean absolute deviation.

    Attributes:
        newest: number of the observation that it learned from last.
    """

    mean: float
    deviation: float = 0.0
    newest: int = 0

    def add(self, value: float) -> None:
        gap = value - self.mean
        self.mean += WEIGHT * gap
        self.deviation += WEIGHT * (abs(gap) - self.deviation)


class LatencyModel:
    """Seconds of a batch by its rows and the size of a row.

    Batches seen before (rows rounded up to a power of two) are predicted by their own running mean; others by a line
    through what was seen, seconds = overhead + slope x cells, where cells is rows times the size of a row. The line is
    a weighted least-squares fit kept as running means, so that it costs the same after a million batches.

    A size that seems to take too long is not run any more, so nothing would show that it doesn't. It is believed to
    take no longer than two batches of half its rows, which are run.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], _Running] = {}
        self._count = 0
        self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, row_size: int, rows: int, seconds: float) -> float:
        """Learn from a batch; return the seconds of it that were a stall, most often 0.

        Args:
            row_size: elements of a row along its dynamic axes; 1 for rows of fixed shape.
            rows: of the batch.
            seconds: in the runtime.
        """
        key = (row_size, _power_of_two(rows))
        self._count += 1
        stalled = 0.0
        known = self._seen.get(key)
        if known is None:
            known = self._seen[key] = _Running(seconds)
        else:
            most = known.mean + max(MOST_DEVIATIONS * known.deviation, known.mean)
            if seconds > most:
                stalled, seconds = seconds - most, most
            known.add(seconds)
        known.newest = self._count
        if not self._count % STALE:
            self._renew()
        weight = max(WEIGHT / 4, 1 / self._count)
        cells = float(row_size * rows)
        self._x += weight * (cells - self._x)
        self._y += weight * (seconds - self._y)
        self._xx += weight * (cells * cells - self._xx)
        self._xy += weight * (cells * seconds - self._xy)
        return stalled

    def _renew(self) -> None:
        """Bring sizes that were not run lately up to date, by what half their rows take."""
        for key in sorted(self._seen):
            known, half = self._seen[key], self._seen.get((key[0], key[1] // 2))
            if half is not None and self._count - known.newest >= STALE and known.mean > 2 * half.mean:
                known.mean, known.deviation = 2 * half.mean, min(known.deviation, 2 * half.deviation)

    def predict(self, row_size: int, rows: int) -> float:
        """Return the seconds that a batch will hardly exceed; 0 before anything was observed."""
        known = self._seen.get((row_size, _power_of_two(rows)))
        if known is not None:
            return known.mean + MARGIN * known.deviation
        variance = self._xx - self._x * self._x
        slope = max(0.0, (self._xy - self._x * self._y) / variance) if variance > 1e-12 * self._xx else 0.0
        return max(0.0, self._y + slope * (row_size * rows - self._x))


class Reserve:
    """The share of a caller's time that is left over when a request is accepted behind others.

    Predictions err, hosts stall, and answers have a way back. A late answer makes the share larger by a step, one in
    time smaller by LATE_SHARE of a step: it comes to rest where LATE_SHARE of the answers are late (stochastic
    approximation, Robbins and Monro 1951). While nothing waits it isn't used, so that a single request may take all of
    its time; and it never keeps a full batch from gathering (`BatchQueue`). Of a stall so long that no share would have
    saved the answer nothing is learned: its late answers are many at once, and thousands in time make up for one.

    Attributes:
        share: 0 to MOST_RESERVE.
    """

    def __init__(self) -> None:
        self.share = 0.1
        self._stall_ended, self._stall_s = -inf, 0.0

    def stalled(self, ended: float, seconds: float) -> None:
        """Note that a batch took so many seconds more than any of its size; 0: it didn't."""
        if seconds:
            self._stall_ended, self._stall_s = ended, seconds

    def answered(self, arrived: float, deadline: float, ended: float) -> None:
        """Learn from an answer; the times are of one clock, in seconds."""
        time_s = deadline - arrived
        if ended > deadline - WAY_BACK * time_s:
            if arrived <= self._stall_ended and self._stall_s > MOST_RESERVE * time_s:
                return
            self.share = min(MOST_RESERVE, self.share + LATE_STEP)
        else:
            self.share = max(0.0, self.share - LATE_STEP * LATE_SHARE)


def _power_of_two(rows: int) -> int:
    return 1 << (rows - 1).bit_length()
