"""Which candidates remain: successive elimination.

All get short trials, in rounds; whatever another beats beyond doubt for no more cost leaves, and what remains gets
longer trials (Even-Dar, Mannor and Mansour, Action Elimination and Stopping Conditions for the Multi-Armed Bandit and
Reinforcement Learning Problems, JMLR 7, 2006). They bound a mean by Hoeffding, for values in a known range; rates have
none, so the bound here is Student's, of rounds in pairs (`hone.evidence.blocks`). The doubt is shared out as theirs: a
rival gets 6 / (pi^2 look^2 (candidates - 1)) of it, which is all of it over all rivals and looks, so that the best
leaves in 5 % of searches at most.

It takes a function that makes a trial and reads no clock: time is what trials say that they took.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from pydantic import Field

from hone.evidence.blocks import FEWEST, Blocks
from hone.evidence.bounds import CONFIDENCE, MATERIAL
from hone.plan import Plan
from hone.records import Record

from ..tuned import UNTRIED, Cost

FIRST_SHARE = 0.45
"""Of the time, for the first round; what wasn't tried by then isn't."""

LONGEST = 8
"""Times the seconds of the first trials, of the last ones."""

ROUNDS = 12


class Visit(Record):
    """One trial of one candidate."""

    candidate: int
    asked_s: float
    took_s: float
    rate: float | None = Field(None, description="At which it crossed the limit; null: it is out.")
    out: str = Field("", description="Why it is out, in words.")
    cost: Cost | None = Field(None, description="Of the first trial.")
    plan: Plan | None = Field(None, description="Of the first trial.")


class Measure(Protocol):
    """Makes a trial."""

    def __call__(self, candidate: int, seconds: float) -> Visit:
        """Load a candidate for so many seconds, and for its cost before, the first time."""


@dataclass
class Remaining:
    """What is known of the candidates.

    Attributes:
        alive: candidates that are still in.
        rates: by candidate, one a round.
        costs: by candidate.
        plans: by candidate: how it ran.
        out: why a candidate left, in words.
        seconds: of a trial in each round.
    """

    alive: list[int]
    rates: dict[int, list[float]] = field(default_factory=dict)
    costs: dict[int, Cost] = field(default_factory=dict)
    plans: dict[int, Plan] = field(default_factory=dict)
    out: dict[int, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)

    def leave(self, candidate: int, why: str) -> None:
        self.alive.remove(candidate)
        self.out[candidate] = why

    def rate(self, candidate: int) -> float | None:
        """The mean of its rounds, longer ones counting for more; None: it has none."""
        rates = self.rates.get(candidate, [])
        weights = self.seconds[: len(rates)]
        return math.exp(float(np.average(np.log(rates), weights=weights))) if rates else None


@dataclass(frozen=True)
class Rules:
    """How the candidates are set against each other.

    Attributes:
        names: of the candidates, in words.
        axes: what is to be low of a cost.
        seconds: of a trial in the first rounds.
        budget_s: for all trials.
    """

    names: Sequence[str]
    axes: Callable[[Cost], tuple[float, ...]]
    seconds: float
    budget_s: float


def no_dearer(one: Sequence[float], other: Sequence[float]) -> bool:
    """True when a cost is, on all its axes, not materially above another."""
    return all(ours <= theirs * (1 + MATERIAL) for ours, theirs in zip(one, other, strict=True))


def front(rates: dict[int, float], costs: dict[int, tuple[float, ...]]) -> list[int]:
    """Return what no other beats in rate for no more cost, the most rate first; of equals the cheaper."""
    order = sorted(rates, key=lambda one: (-rates[one], costs[one], one))
    kept: list[int] = []
    for one in order:
        # Those before have at least its rate: it stays when it is cheaper than each of them on some axis.
        if not any(no_dearer(costs[better], costs[one]) for better in kept):
            kept.append(one)
    return kept


class Elimination:
    """One search.

    Args:
        rules: of it.
        measure: makes a trial.
        done: told of each trial, the round, and the seconds left.
    """

    def __init__(
        self,
        rules: Rules,
        measure: Measure,
        done: Callable[[Visit, int, float], None] = lambda visit, number, left_s: None,
    ) -> None:
        self._rules = rules
        self._measure = measure
        self._done = done
        self._spent_s = 0.0
        self._overhead: dict[int, float] = {}
        self.state = Remaining(list(range(len(rules.names))))

    def run(self) -> Remaining:
        """Return what remains when it is settled, or the time is over."""
        state, seconds = self.state, self._rules.seconds
        for number in range(1, ROUNDS + 1):
            if number > FEWEST:
                seconds = min(2 * seconds, LONGEST * self._rules.seconds)
            if number > 1 and not self._fits(seconds):
                break
            self._round(number, seconds)
            if len(state.alive) < 2 or (number >= FEWEST and self._look(number - 1)):
                break
        return state

    def _fits(self, seconds: float) -> bool:
        wanted = sum(self._overhead[one] + seconds for one in self.state.alive)
        return self._spent_s + wanted <= self._rules.budget_s

    def _round(self, number: int, seconds: float) -> None:
        """Try all that remain, in an order of the round's own; those that fail leave."""
        state, rules = self.state, self._rules
        state.seconds.append(seconds)
        # The first round keeps the order that they were given in: those at its end are the ones to go without.
        order = state.alive[:] if number == 1 else np.random.default_rng(number).permutation(state.alive).tolist()
        for one in order:
            if number == 1 and self._spent_s > FIRST_SHARE * rules.budget_s:
                state.leave(one, UNTRIED)
                continue
            visit = self._measure(one, seconds)
            self._spent_s += visit.took_s
            self._overhead[one] = max(visit.took_s - seconds, 0.0)
            self._note(visit)
            self._done(visit, number, rules.budget_s - self._spent_s)

    def _note(self, visit: Visit) -> None:
        state, one = self.state, visit.candidate
        if visit.plan is not None:
            state.plans[one] = visit.plan
        if visit.cost is not None:
            state.costs[one] = visit.cost
        same = next((other for other in state.alive if other != one and self._alike(one, other)), None)
        if visit.rate is None:
            state.leave(one, visit.out)
        elif len(state.seconds) == 1 and same is not None:
            state.leave(one, f"runs as {self._rules.names[same]}")
        else:
            state.rates.setdefault(one, []).append(visit.rate)

    def _alike(self, one: int, other: int) -> bool:
        plans = self.state.plans
        return one in plans and other in plans and _runs_as(plans[one]) == _runs_as(plans[other])

    def _look(self, look: int) -> bool:
        """Let the beaten ones leave; return whether what remains is settled: none can be beaten materially."""
        state = self.state
        doubt = (1 - CONFIDENCE) * 6 / (math.pi * look) ** 2 / max(1, len(self._rules.names) - 1)
        here = state.alive[:]
        logs = np.log(np.array([state.rates[one] for one in here]))
        blocks = Blocks(logs, np.array(state.seconds))
        means = blocks.means
        settled = True
        for place, one in enumerate(here):
            rivals = [rival for rival in range(len(here)) if rival != place and self._no_dearer(here[rival], one)]
            for rival in sorted(rivals, key=lambda rival: -means[rival]):
                low, high = blocks.ratio(place, rival, doubt)
                if high < 1 and means[place] <= (1 - MATERIAL) * means[rival]:
                    share = means[place] / means[rival]
                    state.leave(one, f"beaten: {share:.0%} of the rate of {self._rules.names[here[rival]]}")
                    break
                settled = settled and low >= 1 - MATERIAL
        return settled

    def _no_dearer(self, one: int, other: int) -> bool:
        axes, costs = self._rules.axes, self.state.costs
        return no_dearer(axes(costs[one]), axes(costs[other]))


def _runs_as(plan: Plan) -> tuple[object, ...]:
    return (
        plan.model, plan.workers, plan.threads, plan.in_flight, plan.max_batch_rows, plan.max_batch_cells,
        plan.inline, plan.pad, plan.spin,
    )  # fmt: skip
