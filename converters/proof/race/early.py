"""Over the budget, whatever the rows that are left say: bounds of a loss that hold while rows still come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hone.evidence.sequences import MeanSequence
from hone.signature import Tensors

from ..judge import Judge
from ..verdicts.claims import Claim, Evidence
from .referee import Seen

FIRST_ROWS = 64
"""Rows before the first look; each later one comes after half as many again."""
STEP = 32
"""Pieces are whole batches."""

SHARE_OF_RISK = 0.1
"""Of the risk that a miss is none, a look before the last row may take so much."""

REACH = 4.0
"""A row's loss that is farther from what is allowed than so many times the best possible one counts as just that far:
the mean can only become less by it. So small losses of many rows show soon, and, where a loss has an end, large losses
of a few rows by a second bound that takes them as they are."""

SEED = 0


@dataclass(frozen=True)
class SeenLoss:
    """A loss on the rows that were seen, and what it is between; the bounds hold at the confidence of the looks."""

    point: float
    least: float
    most: float

    def lower(self, confidence: float) -> float:
        del confidence
        return self.least

    def upper(self, confidence: float) -> float:
        del confidence
        return self.most

    def rows_to_decide(self, allowed: float, confidence: float) -> int | None:
        del allowed, confidence
        return None


class Early:
    """Looks at what variants lose while they answer, by the metric that ranks.

    Args:
        judge: of that metric.
        allowed: loss, in its unit.
        source: its answers to all rows.
        labels: of these, or None.
        confidence: of the budget.
    """

    def __init__(
        self, judge: Judge, allowed: float, source: Tensors, labels: np.ndarray | None, confidence: float
    ) -> None:
        self._judge, self._allowed = judge, allowed
        self._source, self._labels = source, labels
        self._sign = 1 if judge.higher_is_better else -1
        self._own, self._least, self._most = self._range()
        cut = allowed + REACH * (allowed - self._least)
        self._cuts = tuple(sorted({one for one in (cut, self._most) if one <= self._most and np.isfinite(one)}))
        self._confidence = 1 - SHARE_OF_RISK * (1 - confidence) / max(1, len(self._cuts))
        self._sequences: dict[str, list[MeanSequence]] = {}
        self.evidence: dict[str, Evidence] = {}
        """Of the variants that were stopped."""

    def _range(self) -> tuple[np.ndarray | None, float, float]:
        """Return the source's number for each row, and the least and the largest loss of a row.

        No numbers where nothing can be watched: a row's is not its own, or can be better without an end.
        """
        metric, nothing = self._judge.metric, (None, 0.0, 1.0)
        if metric is None or metric.together:
            return nothing
        own = self._judge.by_row(self._source, self._source, self._labels)
        if own is None:
            return nothing
        worst = metric.bounds[0 if metric.higher_is_better else 1]
        least, most = float((self._sign * (own - metric.best)).min()), float((self._sign * (own - worst)).max())
        if not np.isfinite(least) or not least < self._allowed < most:
            return nothing
        return own, least, most

    def pieces(self, rows: int) -> Iterator[np.ndarray] | None:
        """Return row numbers in a random order, always the same, in growing pieces; None where nothing is watched.

        Rows are often sorted, by class or by time: the first ones of a file tell nothing of all.
        """
        if self._own is None or rows <= FIRST_ROWS:
            return None
        ends = [FIRST_ROWS]
        while ends[-1] < rows:
            ends.append(min(rows, ends[-1] * 3 // 2 // STEP * STEP))
        return iter(np.split(np.random.default_rng(SEED).permutation(rows), ends[:-1]))

    def look(self, name: str, got: Tensors, rows: np.ndarray) -> Seen | None:
        """Return what was seen of a variant when its loss is over what is allowed beyond doubt.

        Args:
            name: of it.
            got: its answers so far.
            rows: that these are to, in the order of the answers.
        """
        whole = self._among_the_source_s(got, rows)
        theirs = None if whole is None else self._judge.by_row(whole, self._source, self._labels)
        if self._own is None or theirs is None:
            return None
        own, mine = self._own[rows], theirs[rows]
        lost = np.nan_to_num(self._sign * (own - mine), nan=self._cuts[-1])
        low = self._bound(name, lost)
        if len(rows) == len(self._own) or low <= self._allowed:
            return None
        point = float(lost.mean())
        claim = Claim(self._judge.name, self._allowed, SeenLoss(point, low, self._most))
        self.evidence[name] = Evidence(claim)
        reason = (
            f"over the budget after {len(rows)} of {len(self._own)} rows: {claim.what} loses {point:.4g}, at least "
            f"{low:.4g}, and {self._allowed:.4g} is allowed"
        )
        return Seen(float(mine.mean()), float(own.mean()), reason)

    def _bound(self, name: str, lost: np.ndarray) -> float:
        """Return what the mean loss is above, from the rows so far; those that are known are not added again."""
        if name not in self._sequences:
            self._sequences[name] = [MeanSequence(self._least, cut, self._confidence) for cut in self._cuts]
        for sequence, cut in zip(self._sequences[name], self._cuts, strict=True):
            sequence.add(np.clip(lost[sequence.count :], self._least, cut))
        return max(sequence.low for sequence in self._sequences[name])

    def _among_the_source_s(self, got: Tensors, rows: np.ndarray) -> Tensors | None:
        """Return a variant's answers with the source's for the rows that are left: how answers are read is told from
        all of them. None where they don't fit; the proof of all rows will say why."""
        mine, source = got.get(self._judge.output), self._source[self._judge.output]
        if mine is None or mine.shape != (len(rows), *source.shape[1:]):
            return None
        if (mine.dtype.kind in "US") != (source.dtype.kind in "US"):
            return None
        whole = source.astype(np.result_type(mine, source))
        whole[rows] = mine
        return {self._judge.output: whole}
