"""What a variant loses against its source on the same rows, with bounds, for any metric.

Rows that are right or wrong are counted, and the bounds are exact; anything else is computed again on rows that are
drawn from the evaluation, the same ones for every variant.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from hone.errors import RecipeError
from hone.evidence.pairs import Pairs
from hone.evidence.resampling import DRAWS, FEWEST_DRAWS, Draws, Resampled, draw, mean_of
from hone.signature import Tensors

from ..judge import Judge, at
from ..labels import shown

FEWEST_ROWS = 8
"""Rows under which nothing is said: drawing from them shows nothing that isn't among them."""

SCORING_S = 60.0
"""A metric that would take longer over all draws gets fewer of them."""

SHUFFLES = 8
"""Choices of rows to break; the worst counts."""

FEW_TELL = 6.5
"""With fewer rows that make a difference, drawing can't show how many more there may be."""


class Bounds(Protocol):
    """A loss and what it is between; positive is worse than the source."""

    @property
    def point(self) -> float: ...

    def lower(self, confidence: float) -> float: ...

    def upper(self, confidence: float) -> float: ...

    def rows_to_decide(self, allowed: float, confidence: float) -> int | None: ...


@dataclass(frozen=True)
class DrawnLoss:
    """A loss whose bounds are drawn, and what rows that the evaluation happens not to hold might add.

    Attributes:
        figure: the loss.
        broken: what it costs when so many more rows get a wrong answer; None where each row tells a little.
    """

    figure: Resampled
    broken: Callable[[int], float] | None = None

    @property
    def point(self) -> float:
        return self.figure.point

    def lower(self, confidence: float) -> float:
        return min(self.point, self.figure.lower(confidence))

    def upper(self, confidence: float) -> float:
        """Return the drawn bound, and on top of it the cost of as many rows as the rule of three can't exclude."""
        bound = max(self.point, self.figure.upper(confidence))
        return bound + self.broken(math.ceil(-math.log(1 - confidence))) if self.broken else bound

    def rows_to_decide(self, allowed: float, confidence: float) -> int | None:
        """As of the figure; where broken rows are added, their cost falls with the number of rows."""
        least = self.figure.rows_to_decide(allowed, confidence)
        if least is None or self.broken is None or allowed <= self.point:
            return least
        cost = self.broken(math.ceil(-math.log(1 - confidence))) / (allowed - self.point)
        spread = math.sqrt(least / self.figure.rows)
        return math.ceil(self.figure.rows * ((spread + math.sqrt(spread**2 + 4 * cost)) / 2) ** 2)


class Reference:
    """The source's answers under one metric: what variants are compared with, scored once for all of them.

    Args:
        judge: the metric.
        source: the source's answers, rows on axis 0.
        labels: of the rows, or None.
        numbers: of the rows that count; default: all. How answers are read is told from all of them all the same.
        scoring_s: that the metric may take over all draws; one that would take longer gets fewer of them.
    """

    def __init__(
        self,
        judge: Judge,
        source: Tensors,
        labels: np.ndarray | None,
        numbers: np.ndarray | None = None,
        scoring_s: float = SCORING_S,
    ) -> None:
        self.judge = judge
        self._scoring_s = scoring_s
        self._source, self._labels = source, labels
        self._all = max((len(array) for array in source.values() if array.ndim), default=0)
        self._numbers = np.arange(self._all) if numbers is None else numbers
        self.rows = len(self._numbers)
        self._sign = 1 if judge.higher_is_better else -1

    def of(self, numbers: np.ndarray) -> Reference:
        """Return the same of these rows alone; variants give their answers to all rows."""
        return Reference(self.judge, self._source, self._labels, numbers, self._scoring_s)

    @cached_property
    def score(self) -> float:
        """The source's own."""
        return self.judge.score(self._source, self._source, self._labels)

    def drop(self, got: Tensors) -> float:
        """Return what a variant loses, without bounds; NaN where the metric can't be computed on these rows."""
        everything = np.arange(self.rows)
        return self.judge.drop(self._scorer(self._source)(everything), self._scorer(got)(everything))

    def _scorer(self, got: Tensors) -> Callable[[np.ndarray], float]:
        """Return the score of any of the rows that count."""
        score = self.judge.over_rows(got, self._source, self._labels)
        return lambda rows: score(self._numbers[rows])

    def _by_row(self, got: Tensors) -> np.ndarray | None:
        values = self.judge.by_row(got, self._source, self._labels)
        return None if values is None else values[self._numbers]

    def loss(self, got: Tensors) -> Bounds:
        """Return what a variant loses, with bounds.

        Args:
            got: its answers to all rows.

        Raises:
            RecipeError: the rows are too few, or the metric can't be computed on rows drawn from them.
        """
        self._check_rows()
        own, theirs = self._own_by_row, self._by_row(got)
        if own is None or theirs is None:
            return self._bounded(self._scored(got), got)
        apart = self._sign * (own - theirs)
        if self._counts(own, theirs):
            return Pairs(int((apart > 0).sum()), int((apart < 0).sum()), self.rows)
        return self._bounded(draw(mean_of(apart), self.rows), got)

    def by_class(self, got: Tensors) -> dict[str, Pairs]:
        """Return what the share that is right loses among the rows of each class; empty for a metric without classes,
        and where a row has several."""
        metric = self.judge.metric
        if metric is None or metric.classes is None or self._labels is None:
            return {}
        own, wanted = metric.classes(self.judge.answers(self._source, self._source, self._labels))
        theirs, _ = metric.classes(self.judge.answers(got, self._source, self._labels))
        if wanted.shape[1] != 1:
            return {}
        was, stays = (own == wanted)[:, 0], (theirs == wanted)[:, 0]
        found = {}
        for name in np.unique(wanted):
            rows = wanted[:, 0] == name
            pairs = Pairs(int((was & ~stays & rows).sum()), int((stays & ~was & rows).sum()), int(rows.sum()))
            found[shown(np.asarray([name]))] = pairs
        return found

    def below(self, floor: float, got: Tensors) -> Bounds:
        """Return how far a variant's own score is from a floor, with bounds; positive is worse than it.

        Raises:
            RecipeError: as `loss`.
        """
        self._check_rows()
        theirs = self._by_row(got)
        if theirs is not None and self._counts(theirs):
            return _Beyond(Pairs(int((theirs == 0).sum()), 0, self.rows), 1 - floor)
        drawn = self._drawing(self._scorer(got)).times(-self._sign)
        return self._bounded(drawn.plus(self._sign * floor), got)

    def _check_rows(self) -> None:
        if self.rows < FEWEST_ROWS:
            raise RecipeError(f"{self.rows} evaluation row(s) are too few to tell anything; give {FEWEST_ROWS} or more")

    @cached_property
    def _own_by_row(self) -> np.ndarray | None:
        return self._by_row(self._source)

    def _counts(self, *values: np.ndarray) -> bool:
        """True where rows are right or wrong and nothing between."""
        return self._of_classes and all(bool(np.isin(array, (0, 1)).all()) for array in values)

    @property
    def _of_classes(self) -> bool:
        judge = self.judge
        return judge.tells_classes or (judge.metric is not None and self._source[judge.output].dtype.kind in "biuUOS")

    @cached_property
    def _own_draws(self) -> Draws:
        return self._drawing(self._scorer(self._source))

    def _scored(self, got: Tensors) -> Draws:
        theirs = self._drawing(self._scorer(got))
        return self._own_draws.less(theirs).times(self._sign)

    def _drawing(self, score: Callable[[np.ndarray], float]) -> Draws:
        return draw(score, self.rows, self._draws)

    @cached_property
    def _draws(self) -> int:
        """How often the metric can be computed in the time for it."""
        score, everything = self._scorer(self._source), np.arange(self.rows)
        started = time.perf_counter()
        score(everything)
        return int(min(DRAWS, max(FEWEST_DRAWS, self._scoring_s / max(time.perf_counter() - started, 1e-9))))

    def _bounded(self, draws: Draws, got: Tensors) -> Bounds:
        try:
            figure = draws.bounds()
        except ValueError as error:
            raise RecipeError(f"{self.judge.name} has no bounds: {error}; give more rows of each class") from None
        own = self.judge.metric is None and figure.telling < FEW_TELL
        return DrawnLoss(figure, _Broken(self, got) if self._of_classes or own else None)

    def cost(self, got: Tensors, rows: int) -> float:
        """Return what it costs at most, of a few choices, when so many rows get another row's answer."""
        before, losses = self._scorer(got)(np.arange(self.rows)), [0.0]
        for seed in range(SHUFFLES):
            generator = np.random.default_rng(seed)
            order = np.arange(self._all)
            hit = generator.choice(self._numbers, min(rows, self.rows), replace=False)
            order[hit] = [self._another(row, generator) for row in hit]
            after = self._scorer(at(got, order))(np.arange(self.rows))
            losses.append(self.judge.drop(before, after))
        return float(np.nanmax(losses))

    def _another(self, row: int, generator: np.random.Generator) -> int:
        """Return a row that the source answers otherwise, where there is one."""
        answers = self._source[self.judge.output] if self.judge.output else next(iter(self._source.values()))
        flat = answers.reshape(self._all, -1)
        keys = flat.argmax(axis=1) if flat.shape[1] > 1 and flat.dtype.kind in "biuf" else flat[:, 0]
        if answers.dtype.kind == "f" and flat.shape[1] == 1:
            keys = flat[:, 0] > np.median(flat[:, 0])
        others = np.flatnonzero(keys != keys[row])
        return int(generator.choice(others if others.size else np.arange(self._all)))


class _Broken:
    """What broken rows cost, computed once for each number of them."""

    def __init__(self, reference: Reference, got: Tensors) -> None:
        self._reference, self._got = reference, got
        self._known: dict[int, float] = {}

    def __call__(self, rows: int) -> float:
        if rows not in self._known:
            self._known[rows] = self._reference.cost(self._got, rows)
        return self._known[rows]


@dataclass(frozen=True)
class _Beyond:
    """How far a loss is beyond another number."""

    loss: Bounds
    other: float

    @property
    def point(self) -> float:
        return self.loss.point - self.other

    def lower(self, confidence: float) -> float:
        return self.loss.lower(confidence) - self.other

    def upper(self, confidence: float) -> float:
        return self.loss.upper(confidence) - self.other

    def rows_to_decide(self, allowed: float, confidence: float) -> int | None:
        return self.loss.rows_to_decide(allowed + self.other, confidence)
