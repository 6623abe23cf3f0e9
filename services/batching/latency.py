"""What a batch takes, learned while serving: deadlines are judged by it."""

from __future__ import annotations

from dataclasses import dataclass

WEIGHT = 0.1
"""Of the newest observation in the running means: about the last twenty batches count."""

MARGIN = 2.0
"""A prediction is the mean plus so many mean deviations: a deadline is promised, not hoped for."""


LATE_SHARE = 0.0005
"""Of the answers with a deadline that may be late; `Reserve` keeps to it."""

LATE_STEP = 0.02
MOST_RESERVE = 0.5
WAY_BACK = 0.05
"""Of a caller's time that the answer needs from the runtime to the caller."""


@dataclass
class _Running:
    """Exponentially weighted mean and mean absolute deviation."""

    mean: float
    deviation: float = 0.0

    def add(self, value: float) -> None:
        gap = value - self.mean
        self.mean += WEIGHT * gap
        self.deviation += WEIGHT * (abs(gap) - self.deviation)


class LatencyModel:
    """Seconds of a batch by its rows and the size of a row.

    Batches seen before (rows rounded up to a power of two) are predicted by their own running mean; others by a line
    through what was seen, seconds = overhead + slope x cells, where cells is rows times the size of a row. The line is
    a weighted least-squares fit kept as running means, so that it costs the same after a million batches.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int], _Running] = {}
        self._count = 0
        self._x = self._y = self._xx = self._xy = 0.0

    def observe(self, row_size: int, rows: int, seconds: float) -> None:
        """Learn from a batch.

        Args:
            row_size: elements of a row along its dynamic axes; 1 for rows of fixed shape.
            rows: of the batch.
            seconds: in the runtime.
        """
        key = (row_size, _power_of_two(rows))
        known = self._seen.get(key)
        if known is None:
            self._seen[key] = _Running(seconds)
        else:
            known.add(seconds)
        self._count += 1
        weight = max(WEIGHT / 4, 1 / self._count)
        cells = float(row_size * rows)
        self._x += weight * (cells - self._x)
        self._y += weight * (seconds - self._y)
        self._xx += weight * (cells * cells - self._xx)
        self._xy += weight * (cells * seconds - self._xy)

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
    its time; and it never keeps a full batch from gathering (`BatchQueue`).

    Attributes:
        share: 0 to MOST_RESERVE.
    """

    def __init__(self) -> None:
        self.share = 0.1

    def answered(self, arrived: float, deadline: float, ended: float) -> None:
        """Learn from an answer; the times are of one clock, in seconds."""
        if ended > deadline - WAY_BACK * (deadline - arrived):
            self.share = min(MOST_RESERVE, self.share + LATE_STEP)
        else:
            self.share = max(0.0, self.share - LATE_STEP * LATE_SHARE)


def _power_of_two(rows: int) -> int:
    return 1 << (rows - 1).bit_length()
