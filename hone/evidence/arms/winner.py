"""Who wins a test of several variants beside a control, and what is missing until it is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .means import Difference

Outcome = Literal["winner", "control", "equal", "undecided"]
Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Decision:
    """The outcome of a test.

    Attributes:
        outcome: winner: a variant is better; control: all variants are worse; equal: none is better by what matters.
        arm: that wins; empty when it is the control, or nobody.
        others: variants that are better than the control, too.
    """

    outcome: Outcome
    arm: str = ""
    others: tuple[str, ...] = ()


def gains(found: Difference, better: Better) -> tuple[float, float]:
    """Return what a difference is between where more is better."""
    return (found.low, found.high) if better == "higher" else (-found.high, -found.low)


def decide(variants: Mapping[str, Difference], better: Better, matters: float = 0.0) -> Decision:
    """Return who wins.

    The intervals share the risk among the variants (Bonferroni), so that with the risk stated no variant that isn't
    better than the control ever wins, and the control beats none that isn't worse. Of several that are better the one
    with the highest bound wins; that it is better than the others isn't said.

    Args:
        variants: their differences from the control, by name.
        matters: a gain under which a variant isn't worth a change; 0: any is.
    """
    bounds = {name: gains(found, better) for name, found in variants.items()}
    ahead = sorted((name for name in bounds if bounds[name][0] > 0), key=lambda name: -bounds[name][0])
    if ahead:
        return Decision("winner", ahead[0], tuple(ahead[1:]))
    if all(high < 0 for _, high in bounds.values()):
        return Decision("control")
    if matters and all(high < matters for _, high in bounds.values()):
        return Decision("equal")
    return Decision("undecided")


def is_breach(found: Difference, better: Better, allowed: float) -> bool:
    """Return whether a variant is beyond doubt worse, and not proven to be worse by no more than is allowed."""
    low, high = gains(found, better)
    return math.isfinite(high) and high < 0 and low < -allowed
