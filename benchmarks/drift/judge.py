"""What scores of looks amount to: false alarms a month, rows until a change is found, and both at another threshold.

A look's score is how far it is over the tool's threshold: 1 is at it, and the tool calls from there on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hone.evidence.distributions import student

from .streams import QUIET, RATE

LOOKS_A_MONTH = 720
NONE_SEEN = 3.0
"""Events that are excluded with 95 % confidence where none was seen (the rule of three)."""
FACTORS = np.geomspace(0.1, 30, 800)
"""Of a tool's threshold, that are tried."""

Scores = Mapping[str, np.ndarray]
"""[looks] by part of a stream."""


def of_columns(scores: np.ndarray, share: float) -> np.ndarray:
    """Return [looks] the score that so large a share of the columns reaches, one column at least.

    Args:
        scores: [looks, columns]
    """
    wanted = max(1, math.ceil(share * scores.shape[1]))
    return np.asarray(np.sort(scores, axis=1)[:, -wanted])


def raised(alarms: np.ndarray) -> int:
    """Return how often an alarm begins."""
    return int(alarms[0]) + int((alarms[1:] & ~alarms[:-1]).sum())


def delay(scores: np.ndarray, factor: float) -> float:
    """Return the rows from a change to the first look that calls; infinite: none does."""
    found = np.flatnonzero(scores >= factor)
    return float((found[0] + 1) * RATE) if len(found) else math.inf


@dataclass(frozen=True)
class Judged:
    """A tool at one threshold.

    Attributes:
        factor: of its own threshold.
        alarms: that begin in a month of hourly looks while nothing moves: the mean over streams.
        low, high: bounds of that mean, at 95 %.
        calling: share of these looks that call.
        delays: median rows by change, and of all; infinite: half of them were missed.
        missed: changes that no look found, of `changes`.
    """

    factor: float
    alarms: float
    low: float
    high: float
    calling: float
    delays: dict[str, float]
    missed: int
    changes: int

    def as_json(self) -> dict[str, Any]:
        delays = {kind: value if math.isfinite(value) else None for kind, value in self.delays.items()}
        return {**self.__dict__, "high": self.high if math.isfinite(self.high) else None, "delays": delays}


def judge(streams: Sequence[Scores], factor: float = 1.0) -> Judged:
    """Return what a tool does on all streams, with its threshold times a factor."""
    quiet = [stream[QUIET] >= factor for stream in streams]
    months = sum(map(len, quiet)) / LOOKS_A_MONTH
    rates = [raised(one) * LOOKS_A_MONTH / len(one) for one in quiet]
    low, high = _bounds(rates, months)
    by_kind: dict[str, list[float]] = {}
    for stream in streams:
        for kind in stream.keys() - {QUIET}:
            by_kind.setdefault(kind, []).append(delay(stream[kind], factor))
    everything = [one for found in by_kind.values() for one in found]
    medians = {kind: float(np.median(found)) for kind, found in sorted(by_kind.items())}
    return Judged(
        factor=float(factor),
        alarms=float(np.mean(rates)),
        low=low,
        high=high,
        calling=float(np.concatenate(quiet).mean()),
        delays={**medians, "all": float(np.median(everything))},
        missed=sum(math.isinf(one) for one in everything),
        changes=len(everything),
    )


def _bounds(rates: Sequence[float], months: float) -> tuple[float, float]:
    if not any(rates):
        return 0.0, NONE_SEEN / months
    if len(rates) < 2:
        return 0.0, math.inf
    reach = student(len(rates) - 1, 0.975) * float(np.std(rates, ddof=1)) / math.sqrt(len(rates))
    return max(0.0, float(np.mean(rates)) - reach), float(np.mean(rates)) + reach


def at_delay(streams: Sequence[Scores], rows: float) -> Judged | None:
    """Return a tool at the highest threshold by which it is as quick; None: it is at none."""
    for factor in FACTORS[::-1]:
        found = judge(streams, float(factor))
        if found.delays["all"] <= rows:
            return found
    return None


def at_alarms(streams: Sequence[Scores], calling: float) -> Judged | None:
    """Return a tool at the lowest threshold by which no more looks call while nothing moves; None: at none."""
    for factor in FACTORS:
        if np.concatenate([stream[QUIET] >= factor for stream in streams]).mean() <= calling:
            return judge(streams, float(factor))
    return None
