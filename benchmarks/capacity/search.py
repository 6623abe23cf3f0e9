"""The search: from a first rate to a capacity, and a rate below it that is proven.

It takes a function that makes a trial, so a service and a simulated one are searched alike, and it reads no clock: time
is what the trials say that they took.

First the rate doubles until it fails, and the gap is halved; short runs are enough to see where the limit is about.
What is left of the time goes into proof: at a rate a little below, runs go on until the share of slow requests is
below what the limit allows at 99 % confidence, or above, or the time is over. At most five rates are tried so,
together with 95 % confidence (Bonferroni), whatever their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hone.capacity import Slo, Trial

from .curve import Curve, fit
from .runs import CONFIDENCE, LOOKS, GeneratorLimitError, Runs, Void, judge, slow_share

GAP = 0.05
"""The first part ends when the rate that passed and the one that failed are so close."""

FIRST_RATE = 20.0
ENOUGH = 5
"""Requests that a trial at the lowest rate should have."""

HIGHEST_RATE = 200_000.0
PROOFS = 5
"""Rates that a proof is tried at: as many as 1 % of doubt each makes 5 % together."""

CLOSE = 0.97
"""A proven rate of so much of the capacity is near enough."""

STEP = 0.985
BRACKET_SHARE = 0.5
"""Of the time, for the first part."""

REFINEMENTS = 2
REFINE_SHARE = 0.06
"""Of the time, for each of the longer runs that follow."""

TRY_SHARE = 0.6
"""Of the time that is left, for the proof at one rate."""

BELOW = 0.95
"""Of a rate that the generator can't hold, what it is tried at next."""

SPARE = 1.5
"""So much longer than expected a proof may be planned to take: how requests follow each other shows late."""


@dataclass(frozen=True)
class Effort:
    """How long a search may take.

    Attributes:
        duration_s: of a run in the first part.
        repeats: runs of that length at each rate that is to be proven, at least.
        budget_s: for all.
    """

    duration_s: float = 10.0
    repeats: int = 3
    budget_s: float = 600.0


def minutes(seconds: float) -> str:
    """Return a time in words, as progress tells it: `90 s`, `12 min`."""
    seconds = max(seconds, 0.0)
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


@dataclass(frozen=True)
class Proof:
    """The runs at one rate that was to be proven."""

    rate: float
    trials: tuple[Trial, ...]
    verdict: str


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        search: trials of the first part.
        proofs: tries at a proof, in their order.
        rate: at which the limits are just met, as all trials say.
        void: a run at the lowest rate that the generator could not hold; None: it held all.
    """

    search: list[Trial]
    proofs: list[Proof]
    rate: float
    void: Void | None = None

    @property
    def proven(self) -> Proof | None:
        met = [proof for proof in self.proofs if proof.verdict == "met"]
        return max(met, key=lambda proof: proof.rate, default=None)


def search(runs: Runs, effort: Effort) -> Found:
    """Search a capacity; without a rate that passes, there are no proofs and the rate is 0."""
    return Search(runs, effort).run()


class Search:
    """One search.

    Args:
        runs: what makes the trials.
        effort: how long it may take.
    """

    def __init__(self, runs: Runs, effort: Effort) -> None:
        self._runs = runs
        self._slo: Slo = runs.slo
        self._effort = effort
        self._search: list[Trial] = []
        self._proofs: list[Proof] = []
        self._void: Void | None = None

    @property
    def _left_s(self) -> float:
        return self._effort.budget_s - self._runs.spent_s

    def run(self) -> Found:
        end_s = BRACKET_SHARE * self._effort.budget_s
        for trial in bracket(self._quick, ENOUGH / self._effort.duration_s):
            self._search += [trial] if trial else []
            if self._runs.spent_s > end_s:
                break
        if not any(trial.passed for trial in self._search):
            return Found(self._search, [], 0.0, self._void)
        for _ in range(REFINEMENTS):
            refined = self._refine()
            self._search += [refined] if refined else []
        for _ in range(PROOFS):
            if not (rate := self._next()):
                break
            self._proofs += self._prove(rate)
        return Found(self._search, self._proofs, self._rate(), self._void)

    def _run(self, rate: float, seconds: float) -> Trial | None:
        """Make a trial; None where the generator can't hold the rate, which then bounds those that follow."""
        try:
            return self._runs(rate, seconds, self._left_s)
        except GeneratorLimitError as error:
            if self._void is None or error.void.rate < self._void.rate:
                self._void = error.void
            return None

    @property
    def _holds(self) -> float:
        """The highest rate that is left to try, for what the generator can hold."""
        return math.inf if self._void is None else BELOW * self._void.rate

    def _quick(self, rate: float) -> Trial | None:
        return self._run(rate, self._effort.duration_s)

    def _refine(self) -> Trial | None:
        """Make a longer run a little below the limit, where proofs are tried: how requests follow each other shows in
        long runs only."""
        curve = self._curve()
        rate = CLOSE * (curve.crossing if curve else max(trial.rate for trial in self._search if trial.passed))
        seconds = max(self._effort.duration_s, REFINE_SHARE * self._effort.budget_s)
        return self._run(min(rate, self._holds), seconds)

    def _next(self) -> float:
        """Return the highest rate that the time left can prove; 0: none, or none that is worth it."""
        proven = max((proof.rate for proof in self._proofs if proof.verdict == "met"), default=0.0)
        ceiling = STEP * min((proof.rate for proof in self._proofs if proof.verdict != "met"), default=math.inf)
        curve = self._curve()
        best = curve.crossing if curve else max(trial.rate for trial in self._search if trial.passed)
        floor = max(proven / STEP, 0.0)
        rate = min(best * STEP, ceiling, self._holds)
        shortest = self._effort.duration_s * self._effort.repeats
        if proven >= CLOSE * best or self._left_s < shortest:
            return 0.0
        time_s = TRY_SHARE * self._left_s
        lowest = 0.8 * rate
        while rate > max(lowest, floor) and curve and curve.seconds_to_prove(rate, self._confidence) * SPARE > time_s:
            rate *= STEP
        return rate if rate > floor else 0.0

    @property
    def _confidence(self) -> float:
        return 1 - (1 - CONFIDENCE) / LOOKS

    def _prove(self, rate: float) -> list[Proof]:
        """Run at a rate until its verdict is beyond doubt, or the time is over; each run as long as all before.

        A generator that can't hold the rate leaves it undecided, and untried when it never could.
        """
        end_s = self._left_s * (1 - TRY_SHARE)
        trials: list[Trial] = []
        for _ in range(self._effort.repeats):
            if not (trial := self._run(rate, self._effort.duration_s)):
                return [Proof(rate, tuple(trials), "undecided")] if trials else []
            trials.append(trial)
        for look in range(LOOKS):
            verdict = judge(trials, self._slo, LOOKS)
            more_s = sum(trial.asked_s for trial in trials)
            if verdict != "undecided" or look == LOOKS - 1 or self._left_s - more_s < end_s:
                break
            if look and self._is_hopeless(trials, self._left_s - end_s):
                break
            if not (trial := self._run(rate, more_s)):
                break
            trials.append(trial)
        return [Proof(rate, tuple(trials), verdict)]

    def _is_hopeless(self, trials: Sequence[Trial], seconds: float) -> bool:
        """True when twice the time would not prove the rate if requests stay as they are: a lower one will be."""
        share = slow_share(trials)
        wanted = share.requests_to_decide(self._slo.allowed, self._confidence)
        return wanted is None or wanted - share.of > 2 * seconds * trials[-1].answered

    def _curve(self) -> Curve | None:
        return fit(self._runs.done, self._slo.allowed)

    def _rate(self) -> float:
        """Return the estimate of all trials, above what is proven and below what beyond doubt failed."""
        curve = self._curve()
        passed = [trial.rate for trial in self._search if trial.passed]
        rate = curve.crossing if curve else max(passed)
        proven = max((proof.rate for proof in self._proofs if proof.verdict == "met"), default=0.0)
        missed = min((proof.rate for proof in self._proofs if proof.verdict == "missed"), default=math.inf)
        return max(proven, min(rate, missed))


def bracket(trial: Callable[[float], Trial | None], lowest: float = 0.05) -> Iterator[Trial | None]:
    """Double the rate until it fails, then halve the gap between what passed and what failed.

    Args:
        trial: of a rate; None: the generator can't hold it, which is as far as the search goes.
        lowest: rate that is tried: under it, a trial has too few requests to say anything.
    """
    passed, failed, rate = 0.0, 0.0, FIRST_RATE
    while rate <= HIGHEST_RATE:
        found = trial(rate)
        yield found
        if not found or not found.passed:
            failed = rate
            break
        passed, rate = rate, rate * 2
    # A service that is slower than the first guess is searched downward.
    while failed and not passed and failed / 4 >= lowest:
        found = trial(failed / 4)
        yield found
        passed, failed = (failed / 4, failed) if found and found.passed else (0.0, failed / 4)
    while passed and failed and (failed - passed) / failed > GAP:
        rate = (passed + failed) / 2
        found = trial(rate)
        yield found
        passed, failed = (rate, failed) if found and found.passed else (passed, rate)


def limited_by(found: Found) -> Literal["service", "generator"]:
    """Return what gave out above the rate: the generator, when it held no rate there that the service failed at."""
    failed = [trial for trial in found.search if not trial.passed and trial.rate > found.rate]
    return "generator" if found.void and not failed else "service"


def requests_to_decide(proofs: Sequence[Proof], slo: Slo) -> int | None:
    """Return how many requests more would decide the last proof; None: its share is too near to the limit, or no proof
    was tried."""
    if not proofs:
        return None
    share = slow_share(proofs[-1].trials)
    wanted = share.requests_to_decide(slo.allowed, 1 - (1 - CONFIDENCE) / LOOKS)
    return None if wanted is None else max(wanted - share.of, 1)
