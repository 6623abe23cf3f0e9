"""What must hold of a variant's answers, and what the evaluation rows say of it: a claim a limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from hone.errors import RecipeError
from hone.evidence.pairs import Pairs
from hone.recipe import Budget, allowed_drop
from hone.signature import Tensors

from ..judge import Judge
from .loss import Bounds, Reference

TOLERANCE = 1e-12
NO_SLICES = "name the columns in evaluation.slices"


@dataclass(frozen=True)
class Claim:
    """Something that must not be larger than a limit.

    Attributes:
        what: in words, such as `accuracy`.
        allowed: the limit.
        bounds: of it; None where it has none.
        problem: why it has none.
        rows: that it is about; 0 for all of them.
        verb: what the number is of it.
    """

    what: str
    allowed: float
    bounds: Bounds | None = None
    problem: str = ""
    rows: int = 0
    verb: str = "loses"

    def upper(self, confidence: float) -> float:
        return self.bounds.upper(confidence) if self.bounds else float("inf")

    def met(self, confidence: float) -> bool:
        return self.upper(confidence) <= self.allowed + TOLERANCE

    def missed(self, confidence: float) -> bool:
        if self.bounds is None:
            return False
        return self.bounds.lower(confidence) > self.allowed + TOLERANCE


@dataclass(frozen=True)
class Worst:
    """Where a variant loses the most: a class, or a slice of the evaluation."""

    name: str
    loss: float
    rows: int


@dataclass(frozen=True)
class Fragility:
    """What one kind of disturbance at one severity costs a variant.

    Attributes:
        kind, severity: of the disturbance.
        rows: that the source and the variant answered.
        source: the source's score on them; None where it has none.
        claim: what the variant loses against it; without a limit as much as it likes.
    """

    kind: str
    severity: int
    rows: int
    source: float | None
    claim: Claim


@dataclass(frozen=True)
class Evidence:
    """What the evaluation rows say of one variant.

    Attributes:
        loss: the claim of the first metric.
        others: what else must hold.
        worst_class, worst_slice: None where there are no classes, or slices.
        disturbed: what it loses on disturbed rows; empty where none were.
    """

    loss: Claim
    others: tuple[Claim, ...] = ()
    worst_class: Worst | None = None
    worst_slice: Worst | None = None
    disturbed: tuple[Fragility, ...] = ()

    @property
    def claims(self) -> tuple[Claim, ...]:
        return (self.loss, *self.others)

    def with_disturbed(self, found: tuple[Fragility, ...]) -> Evidence:
        """Return it with what was seen on disturbed rows; what is limited of that must hold, too."""
        limited = (one.claim for one in found if math.isfinite(one.claim.allowed))
        return replace(self, others=(*self.others, *limited), disturbed=found)

    def met(self, confidence: float) -> bool:
        return all(claim.met(confidence) for claim in self.claims)


@dataclass(frozen=True)
class Asked:
    """What the recipe asks of answers: its metrics with their limits, and the budget.

    Attributes:
        judges: the first ranks variants.
        drops: the limit of each; None is the budget's.
        budget: with the limits on classes, slices and the quality itself.
    """

    judges: Sequence[Judge]
    budget: Budget
    drops: Sequence[float | str | None] = ()


class Proof:
    """The source's answers to the evaluation rows, which variants are ruled against.

    Args:
        asked: of the recipe.
        source: its answers, rows on axis 0.
        labels: of the rows, or None.
        slices: columns whose values tell rows apart.
    """

    def __init__(
        self,
        asked: Asked,
        source: Tensors,
        labels: np.ndarray | None,
        slices: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self._asked = asked
        self._references = [Reference(judge, source, labels) for judge in asked.judges]
        self._slices = slices or {}
        drops = list(asked.drops) + [None] * (len(asked.judges) - len(asked.drops))
        limits = [asked.budget.quality_drop if drop is None else drop for drop in drops]
        self._limits = [
            allowed_drop(limit, reference.score) for limit, reference in zip(limits, self._references, strict=True)
        ]

    def check(self, source: Tensors) -> None:
        """Ask of the source's own answers whether each limit can be told at all, before any variant is made.

        Raises:
            RecipeError: there are no classes or no slices for a limit on them.
        """
        budget = self._asked.budget
        if budget.worst_class_drop is not None and not self._references[0].by_class(source):
            raise RecipeError(f"budget.worst_class_drop: {self._no_classes()}; choose a metric of classes, or drop it")
        if budget.worst_slice_drop is not None and not self._slices:
            raise RecipeError(f"budget.worst_slice_drop: {NO_SLICES}")

    def _no_classes(self) -> str:
        return f"{self._references[0].judge.name} compares no classes with labels"

    @property
    def allowed(self) -> float:
        """What may be lost by the first metric, in its unit."""
        return self._limits[0]

    def of(self, got: Tensors) -> Evidence:
        """Return what a variant's answers to the same rows say.

        Raises:
            RecipeError: a metric can't read them.
        """
        budget, first = self._asked.budget, self._references[0]
        limits = zip(self._references, self._limits, strict=True)
        losses = [claim_of(one.judge.name, limit, partial(one.loss, got)) for one, limit in limits]
        if budget.quality_floor is not None:
            floor = budget.quality_floor
            words = f"{first.judge.name} {'at least' if first.judge.higher_is_better else 'at most'} {floor:g}"
            losses.append(replace(claim_of(words, 0.0, partial(first.below, floor, got)), verb="falls short by"))
        classes, slices = first.by_class(got), self._by_slice
        return Evidence(
            losses[0],
            (*losses[1:], *self._class_claims(classes), *self._slice_claims(slices, got)),
            _worst([Worst(f"class {name}", pairs.point, pairs.rows) for name, pairs in classes.items()]),
            _worst([Worst(name, one.drop(got), one.rows) for name, one in slices.items()]),
        )

    def _class_claims(self, classes: Mapping[str, Pairs]) -> list[Claim]:
        """Return a claim for what the share that is right loses among the rows of each class."""
        limit = self._asked.budget.worst_class_drop
        if limit is None:
            return []
        if not classes:
            return [Claim("the worst class", limit, problem=self._no_classes())]
        return [Claim(f"class {name}", limit, pairs, rows=pairs.rows) for name, pairs in classes.items()]

    @cached_property
    def _by_slice(self) -> dict[str, Reference]:
        """The source's answers to the rows of each slice."""
        return {
            f"{column} {value}": self._references[0].of(np.flatnonzero(values == value))
            for column, values in self._slices.items()
            for value in np.unique(values)
        }

    def _slice_claims(self, slices: Mapping[str, Reference], got: Tensors) -> list[Claim]:
        limit = self._asked.budget.worst_slice_drop
        if limit is None:
            return []
        if not slices:
            return [Claim("the worst slice", limit, problem=NO_SLICES)]
        return [claim_of(name, limit, partial(one.loss, got), one.rows) for name, one in slices.items()]


def claim_of(what: str, allowed: float, bounds: Callable[[], Bounds], rows: int = 0) -> Claim:
    """Return a claim; rows that tell nothing, or a metric that can't be computed on some of them, leave it open."""
    try:
        return Claim(what, allowed, bounds(), rows=rows)
    except RecipeError as error:
        return Claim(what, allowed, problem=str(error), rows=rows)


def _worst(found: Sequence[Worst]) -> Worst | None:
    known = [one for one in found if not math.isnan(one.loss)]
    return max(known, key=lambda one: one.loss) if known else None
