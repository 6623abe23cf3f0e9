"""Verdicts with a stated risk: a loss is within what is allowed when its upper bound is.

A variant has to meet each of several claims: it is called proven when all of them are, each at the full risk, for a
variant that misses one is called proven no more often than that one alone (Berger, Multiparameter hypothesis testing
and acceptance sampling, Technometrics 24, 1982).

Of several variants the best that is proven wins, so that each is another chance for one that loses too much. Their
bounds are widened until the risk that any of them is called proven wrongly is the stated one (Holm, A simple
sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6, 1979). To try them in the
order of the objective, each at the full risk, until one is proven adds up the risks of all that were tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hone.records import Verdict
from hone.signature import Tensors

from .claims import Asked, Claim, Evidence, Proof


@dataclass(frozen=True)
class Ruling:
    """A verdict on one variant.

    Attributes:
        verdict: met, missed, or undecided.
        loss: of the first metric, against the source; negative is better than it.
        lower: a bound of that, at the stated confidence.
        upper: the other, at the level.
        allowed: of that loss.
        confidence: that no variant ruled together with this one is called proven and loses more than is allowed.
        level: confidence of the upper bound, which allows for the other variants.
        rows_to_decide: about how many rows like these would; None where it is decided, or no number would do.
        reason: what is missed, or not decided; empty for what is met.
        evidence: that it rests on.
    """

    verdict: Verdict
    loss: float | None
    lower: float | None
    upper: float | None
    allowed: float
    confidence: float
    level: float
    rows_to_decide: int | None
    reason: str
    evidence: Evidence


def verdict_of(
    source: Tensors,
    variant: Tensors,
    labels: np.ndarray | None,
    asked: Asked,
    slices: Mapping[str, np.ndarray] | None = None,
    level: float | None = None,
) -> Ruling:
    """Return the verdict on one variant by itself.

    Args:
        source, variant: answers to the same rows, by output name, rows on axis 0.
        labels: of the rows, or None.
        asked: metrics and budget.
        slices: columns whose values tell rows apart.
        level: confidence of the upper bounds, such as that of others which it is set beside; default: the budget's.

    Raises:
        RecipeError: a metric can't read the answers at all.
    """
    confidence = asked.budget.confidence
    return _ruling(Proof(asked, source, labels, slices).of(variant), level or confidence, confidence)


def rule(
    evidence: Mapping[str, Evidence], confidence: float, contest: frozenset[str] | None = None
) -> dict[str, Ruling]:
    """Return the verdict on each variant, so that with the stated confidence none is called met that loses too much.

    Args:
        evidence: by variant.
        confidence: of all verdicts together.
        contest: those that could win; another's verdict costs them nothing. Default: all.
    """
    left = set(evidence if contest is None else contest & evidence.keys())
    level: dict[str, float] = {}
    while left:
        now = 1 - (1 - confidence) / len(left)
        proven = {name for name in left if evidence[name].met(now)}
        level |= dict.fromkeys(proven or left, now)
        left -= proven or left
    return {name: _ruling(one, level.get(name, confidence), confidence) for name, one in evidence.items()}


def _ruling(evidence: Evidence, level: float, confidence: float) -> Ruling:
    """Return the verdict at a level that allows for the other variants; a miss is said at the stated confidence."""
    claim = evidence.loss
    broken = [one for one in evidence.claims if one.missed(confidence)]
    open_ones = [one for one in evidence.claims if not one.met(level)]
    verdict: Verdict = "missed" if broken else "undecided" if open_ones else "met"
    rows = [_rows_to_decide(one, level) for one in open_ones] if verdict == "undecided" else []
    reason = "; ".join(_words(one, level) for one in broken or open_ones)
    return Ruling(
        verdict,
        claim.bounds.point if claim.bounds else None,
        claim.bounds.lower(confidence) if claim.bounds else None,
        claim.bounds.upper(level) if claim.bounds else None,
        claim.allowed,
        confidence,
        level,
        None if not rows or None in rows else max(row for row in rows if row is not None),
        reason,
        evidence,
    )


def _rows_to_decide(claim: Claim, level: float) -> int | None:
    return claim.bounds.rows_to_decide(claim.allowed, level) if claim.bounds else None


def _words(claim: Claim, level: float) -> str:
    """Say what isn't met, or not known to be."""
    if claim.bounds is None:
        return f"{claim.what}: {claim.problem}"
    low, high = claim.bounds.lower(level), claim.bounds.upper(level)
    point = claim.bounds.point
    rows = f" of its {claim.rows} rows" if claim.rows else ""
    return (
        f"{claim.what} {claim.verb} {_number(point)}{rows}, between {_number(low)} and {_number(high)}, "
        f"and {_number(claim.allowed)} is allowed"
    )


def _number(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 1e-4 and value else f"{value:.4f}".rstrip("0").rstrip(".")
