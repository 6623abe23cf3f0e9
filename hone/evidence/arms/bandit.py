"""Weights that follow what is known of the arms, and the interval that stays valid while they do.

Thompson sampling (Thompson, Biometrika 25, 1933; Chapelle and Li, An empirical evaluation of Thompson sampling,
NeurIPS 2011) gives an arm the share that is how likely it is the best one. A worse arm gets fewer units, and less is
known of it. Plain means of what was dealt so are biased: an arm that had bad luck gets few units that could
put it right (Nie et al., Why adaptively collected data have negative bias, AISTATS 2018). So each figure is weighed
by the inverse of the share that its arm had when it was dealt (Hadad et al., Confidence intervals for policy
evaluation in adaptive experiments, PNAS 118, 2021), which makes a martingale, and the bound of `sequence.py` holds
for it, whatever weights follow from the past (Waudby-Smith et al., Anytime-valid off-policy inference for contextual
bandits, ACM/IMS Journal of Data Science 1, 2024). The price is in the interval: it is as long as `cost` says times
what equal shares would have given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..distributions import normals_below
from .means import Difference, Sums
from .sequence import FEWEST, reach

LEAST = 0.05
"""Share that each arm keeps: without it, what it is known of it would end, and inverse shares would have no bound."""

PLACES = np.linspace(-6, 6, 97)
"""In standard deviations, at which a normal distribution is added up."""


@dataclass(frozen=True)
class Stage:
    """What arms did while the weights stood still.

    Attributes:
        shares: of the units that each arm got, together 1.
        arms: sums of each, of units with one figure each.
    """

    shares: tuple[float, ...]
    arms: tuple[Sums, ...]


def thompson(arms: Sequence[Sums], sign: int, least: float = LEAST) -> tuple[float, ...]:
    """Return the share of each arm: how likely it is the best, and at least `least`.

    Args:
        arms: what is known of each, of all stages; equal shares while one has too few units.
        sign: 1 where higher is better, -1 where lower is.
    """
    if min(float(arm.units) for arm in arms) < FEWEST:
        return (1 / len(arms),) * len(arms)
    together = sum(arms[1:], arms[0])
    spread = math.sqrt(max(float(together.variance), 1e-300))
    means = np.array([sign * float(arm.mean) for arm in arms])
    errors = spread / np.sqrt([float(arm.units) for arm in arms])
    density = np.exp(-(PLACES**2) / 2)
    values = means[:, None] + errors[:, None] * PLACES
    below = normals_below((values[:, None, :] - means[None, :, None]) / errors[None, :, None])
    for place in range(len(arms)):
        below[place, place] = 1.0
    best = (below.prod(axis=1) * density).sum(axis=1)
    best /= best.sum()
    return tuple(float(one) for one in least + (1 - least * len(arms)) * best)


def weighed_difference(stages: Sequence[Stage], arm: int, planned: float, risk: float) -> tuple[Difference, float]:
    """Return an arm's mean less that of arm 0, from figures weighed by inverse shares; and the cost.

    The cost is how many times as long the interval is as equal shares would have made it with as many units.

    Args:
        arm: its place.
        planned: units of all arms at which the interval is to be shortest.
        risk: that the interval is ever wrong.
    """
    arms = len(stages[0].shares)
    total = [sum((stage.arms[place] for stage in stages[1:]), stages[0].arms[place]) for place in range(arms)]
    units = sum(float(one.units) for one in total)
    spread = float(sum(total[1:], total[0]).variance)
    before = [Sums() for _ in range(arms)]
    sums, squares = {arm: 0.0, 0: 0.0}, 0.0
    meant = 0.0
    for stage in stages:
        size = sum(float(one.units) for one in stage.arms)
        centers = {place: float(before[place].mean) for place in (arm, 0)}
        apart = centers[arm] - centers[0]
        squares += size * apart**2
        for place, sign in ((arm, 1), (0, -1)):
            share, one = stage.shares[place], stage.arms[place]
            off = float(one.totals) - float(one.units) * centers[place]
            around = float(one.squares) - 2 * centers[place] * float(one.totals)
            around += float(one.units) * centers[place] ** 2
            sums[place] += size * centers[place] + off / share
            squares += around / share**2 + 2 * sign * apart * off / share
            meant += size * spread / share
        before = [known + new for known, new in zip(before, stage.arms, strict=True)]
    means = {place: value / max(units, 1) for place, value in sums.items()}
    point = means[arm] - means[0]
    known = max(squares - units * point**2, meant)
    error = math.sqrt(known) / max(units, 1)
    far, equal = math.inf, math.sqrt(2 * arms * spread / max(units, 1))
    if min(float(total[arm].units), float(total[0].units)) >= FEWEST and spread:
        far = error * float(reach(known / (planned * 2 * arms * spread), risk))
    cost = error / equal if equal else 1.0
    return Difference(means[arm], means[0], point, point - far, point + far, error, int(units)), cost
