"""The referee of a run: who can still win by the recipe's objective, and who is clearly beaten."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median

import numpy as np

from hone.artifact import Measurements
from hone.evidence.bounds import MATERIAL
from hone.evidence.sequences import won_by_heads
from hone.recipe import Recipe
from hone.signature import Tensors

from ..evaluate import resolve_threads
from ..subject import Subject
from ..verdicts.claims import Evidence, Fragility
from ..verdicts.select import SAME_QUALITY, SAME_SIZE, over_budget, over_untimed
from ..verdicts.verdict import rule
from .early import Early
from .referee import Joules, Rounds, Seen
from .timing import FEWEST_TURNS, latency_of

RISK = 0.01
"""Of stopping one for another that it would tie with, had both all their turns."""

FAR = 1.5
FAR_TURNS = 6
"""A latency that is over its limit by so much in each of so many turns won't come below it."""

FOR_ANSWERS = 0.5
"""Of the time limit; the other half is for the turns of those that have answered."""

TIMED = ("p50_ms", "p95_ms", "p99_ms", "rows_per_s", "energy_j")
"""Limits of a budget that turns decide."""


@dataclass(frozen=True)
class TimeLimit:
    """When a proof is to be over, on the monotonic clock."""

    minutes: float
    began: float = field(default_factory=time.monotonic)

    def is_over(self, share: float = 1.0) -> bool:
        return time.monotonic() > self.began + share * self.minutes * 60


class Contest:
    """Follows a race.

    Args:
        recipe: with the budget and the objective.
        evidence: what answers to all evaluation rows say of a variant.
        early: looks at variants while they answer; None: they answer all rows at once.
        limit: of time; None: there is none.
        full: everyone who is in time has all rows and all turns.
        disturbed: lets a variant answer disturbed rows, too, and says what it loses there; None: none are asked for.
    """

    def __init__(
        self,
        recipe: Recipe,
        evidence: Callable[[Tensors], Evidence],
        early: Early | None = None,
        limit: TimeLimit | None = None,
        *,
        full: bool = False,
        disturbed: Callable[[str], tuple[Fragility, ...]] | None = None,
    ) -> None:
        self._budget, self._objective = recipe.budget, recipe.objective
        self._evidence_of, self._disturbed = evidence, disturbed
        self._early = None if full else early
        self._limit, self.full = limit, full
        self._measured: dict[str, Measurements] = {}
        self._evidence: dict[str, Evidence] = {}
        self._out: dict[str, str] = {}
        """Why a variant can't win, whatever its latency is."""
        self._beaten_by: dict[str, str] = {}
        self._medians: dict[str, list[float]] = {}
        """Of the turns so far."""

    @property
    def decides(self) -> tuple[int, int]:
        return self._budget.at.batch, resolve_threads(self._budget.at.threads)

    @property
    def evidence(self) -> dict[str, Evidence]:
        """What the rows say of each variant that was asked, those that were stopped included."""
        return {**self._evidence, **(self._early.evidence if self._early else {})}

    @property
    def beaten(self) -> dict[str, str]:
        """By which variant each one was beaten that wasn't timed in full."""
        return dict(self._beaten_by)

    def in_order_of_promise(self, subjects: Sequence[Subject]) -> list[Subject]:
        """Return the source first, and where time is limited then the smallest, which is most often the fastest; the
        largest, which is most often the closest to the source, when closeness is the objective."""
        source, *variants = subjects
        if self._limit is not None:
            sign = -1 if self._objective == "quality" else 1
            variants.sort(key=lambda subject: sign * subject.artifact.manifest.size_bytes)
        return [source, *variants]

    def pieces(self, rows: int) -> Iterator[np.ndarray] | None:
        return self._early.pieces(rows) if self._early else None

    def look(self, name: str, got: Tensors, rows: np.ndarray) -> Seen | None:
        return self._early.look(name, got, rows) if self._early else None

    def waits(self, name: str) -> str:
        if self._limit is None or not self._limit.is_over(FOR_ANSWERS):
            return ""
        return f"not proven: half of the {self._limit.minutes:g} minutes were over before its turn"

    def is_late(self) -> bool:
        return self._limit is not None and self._limit.is_over()

    def enters(self, name: str, got: Tensors, measured: Measurements) -> None:
        """Take what a variant has answered; one that is over a limit by that can't win.

        One that may still win answers disturbed rows before its latency is known: only who is proven by these, too,
        beats others.
        """
        self._measured[name] = measured
        broken = over_untimed(measured, self._budget)
        stopped = self._early is not None and name in self._early.evidence
        if not stopped:
            found = self._evidence_of(got)
            if self._disturbed is not None and (self.full or not (broken or self._misses(found))):
                found = found.with_disturbed(self._disturbed(name))
            self._evidence[name] = found
        if stopped or broken or self._misses(self._evidence[name]):
            self._out[name] = "over the budget" + (f": {'; '.join(broken)}" if broken else "")

    def _misses(self, evidence: Evidence) -> bool:
        return any(claim.missed(self._budget.confidence) for claim in evidence.claims)

    def stops(self, rounds: Mapping[str, Rounds], joules: Mapping[str, Joules]) -> Mapping[str, str]:
        ours = {name: found for name, found in rounds.items() if name in self._measured}
        turns = min(map(len, ours.values()), default=0)
        if self.full or turns < FEWEST_TURNS:
            return {}
        stopped = {name: self._out[name] for name in ours if name in self._out}
        stopped |= {name: said for name in ours if name not in stopped and (said := self._far_over(ours[name]))}
        leader = self._leader({name: found for name, found in ours.items() if name not in stopped}, joules)
        for name in ours if leader else ():
            if name not in stopped and name != leader and self._is_beaten(name, leader, ours):
                self._beaten_by[name] = leader
                stopped[name] = f"beaten by {leader}"
        return {name: f"{said}; timed in {len(ours[name])} turns" for name, said in stopped.items()}

    def recalls(self, rounds: Mapping[str, Rounds], joules: Mapping[str, Joules]) -> frozenset[str]:
        """Return the beaten, where none of those that were left is proven and within the limits that turns decide."""
        if not self._beaten_by or self._leader(rounds, joules):
            return frozenset()
        back = frozenset(self._beaten_by)
        self._beaten_by.clear()
        return back

    def _leader(self, rounds: Mapping[str, Rounds], joules: Mapping[str, Joules]) -> str:
        """Return the best of those that are proven, whoever else is, and within each limit so far; or nothing."""
        proven = [name for name in rounds if name in self._proven and self._is_within(name, rounds, joules)]
        return min(proven, key=lambda name: self._worth(name, rounds[name]), default="")

    @cached_property
    def _proven(self) -> frozenset[str]:
        """Those that are called met even if none of the others leaves the contest: fewer make bounds only closer."""
        family = {name: one for name, one in self.evidence.items() if not self._is_over_a_measured_limit(name)}
        rulings = rule(family, self._budget.confidence)
        return frozenset(name for name, ruling in rulings.items() if ruling.verdict == "met")

    def _is_within(self, name: str, rounds: Mapping[str, Rounds], joules: Mapping[str, Joules]) -> bool:
        """True where a variant is within the limits that turns decide, by its turns so far."""
        if all(getattr(self._budget, limit) is None for limit in TIMED):
            return True
        latency = latency_of(self.decides, rounds[name], joules.get(name, ()))
        return not over_budget(self._measured[name].model_copy(update={"latency": (latency,)}), self._budget)

    def _is_over_a_measured_limit(self, name: str) -> bool:
        """True for one that costs the bounds of the others nothing."""
        return self._out.get(name, "").startswith("over the budget:")

    def _worth(self, name: str, rounds: Rounds) -> float:
        measured = self._measured[name]
        if self._objective == "latency":
            return median(self._medians_of(name, rounds))
        return measured.size_mb if self._objective == "size" else measured.quality.drop

    def _is_beaten(self, name: str, leader: str, rounds: Mapping[str, Rounds]) -> bool:
        """True when the selection would prefer the leader by the objective alone."""
        mine, best = self._measured[name], self._measured[leader]
        if self._objective == "size":
            return mine.size_mb > best.size_mb * (1 + SAME_SIZE)
        if self._objective == "quality":
            return mine.quality.drop > best.quality.drop + SAME_QUALITY * abs(best.quality.source)
        return is_behind(*(self._medians_of(one, rounds[one]) for one in (name, leader)))

    def _medians_of(self, name: str, rounds: Rounds) -> list[float]:
        known = self._medians.setdefault(name, [])
        known.extend(float(np.median(turn)) for turn in rounds[len(known) :])
        return known

    def _far_over(self, rounds: Rounds) -> str:
        """Say which limit on latency is far exceeded in every turn; empty where none is."""
        if len(rounds) < FAR_TURNS:
            return ""
        for share, limit in ((50, self._budget.p50_ms), (95, self._budget.p95_ms)):
            if limit is None:
                continue
            least = min(float(np.percentile(turn, share)) for turn in rounds) / 1e6
            if least > FAR * limit:
                return f"p{share} latency is over {limit:g} ms, {least:.4g} ms and more in each turn"
        return ""


def is_behind(ours: list[float], theirs: list[float]) -> bool:
    """True when our times, turn by turn, are beyond doubt and by a share that matters above theirs; asked after each
    turn of both it is wrong in one of a hundred races of two that would tie."""
    ahead = sum(their < our * (1 - MATERIAL) for our, their in zip(ours, theirs, strict=False))
    return won_by_heads(ahead, min(len(ours), len(theirs))) >= 1 / RISK
