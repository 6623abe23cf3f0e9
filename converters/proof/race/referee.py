"""What a proof asks while it goes on: who answers more rows, who is timed in another turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hone.artifact import Measurements
from hone.signature import Tensors

OUT_OF_TIME = "the time was over"
"""How the reason begins for which one was timed in fewer turns than it should have been."""

Rounds = Sequence[Sequence[int]]
"""Latencies of calls in nanoseconds, by turn."""

Joules = Sequence[float | None]
"""What the calls of each turn used; None where the host doesn't tell."""


@dataclass(frozen=True)
class Seen:
    """What was seen of a variant that answered no more rows.

    Attributes:
        value, source: the first metric on the rows that it answered, and the source's on the same rows.
        reason: why it was stopped, one line.
    """

    value: float
    source: float
    reason: str


class Referee(Protocol):
    """Decides what of a proof isn't worth its time."""

    @property
    def full(self) -> bool:
        """True when everything is measured that there is time for."""

    @property
    def decides(self) -> tuple[int, int]:
        """The batch size and thread count that variants are ranked at."""

    def pieces(self, rows: int) -> Iterator[np.ndarray] | None:
        """Return the numbers of the rows in pieces, after each of which `look` is asked; None: all at once."""

    def look(self, name: str, got: Tensors, rows: np.ndarray) -> Seen | None:
        """Return what was seen of a variant when it isn't to answer more rows.

        Args:
            name: of it.
            got: its answers so far.
            rows: that these are to.
        """

    def waits(self, name: str) -> str:
        """Return why a variant isn't asked at all; empty when it is."""

    def enters(self, name: str, got: Tensors, measured: Measurements) -> None:
        """Take a variant that has answered all rows into the race; `measured` has no latencies yet."""

    def stops(self, rounds: Mapping[str, Rounds], joules: Mapping[str, Joules]) -> Mapping[str, str]:
        """Return which of those that are timed are timed no more, and why, after a turn of all of them.

        Args:
            rounds: of each, where variants are ranked.
            joules: of the same turns.
        """

    def recalls(self, rounds: Mapping[str, Rounds], joules: Mapping[str, Joules]) -> frozenset[str]:
        """Return those that were stopped for one that can't win itself: they get the turns that they missed."""

    def is_late(self) -> bool:
        """True when the time for the proof is over."""
