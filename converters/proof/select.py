"""Select: which variants meet the budget, which is best, and why each of the others lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hone.artifact import Latency, Measurements
from hone.evidence.bounds import MATERIAL, is_faster
from hone.recipe import Budget, Recipe

from .evaluate import resolve_threads

SAME_SIZE = 0.01
"""Sizes that differ by less than this share are the same."""
SAME_QUALITY = 1e-4
"""So are drops that differ by less than this share of the source's quality."""


@dataclass(frozen=True)
class Candidate:
    """A measured variant.

    Attributes:
        servable: False for the source itself.
        steps: passes that made it.
        turned: callers send it other inputs than the source takes, such as images channels first.
    """

    name: str
    measurements: Measurements
    servable: bool = True
    steps: int = 0
    turned: bool = False


@dataclass(frozen=True)
class Verdict:
    """Where a variant stands.

    Attributes:
        rank: among eligible variants first, then the others; 0 is the winner.
        eligible: meets every limit of the budget.
        pareto: no other variant is at least as good in quality and latency, and better in one.
        reason: why it lost, or what it won by.
        tied: can't be told from the winner by the objective.
    """

    rank: int
    eligible: bool
    pareto: bool
    reason: str
    tied: bool = False


def select(candidates: list[Candidate], recipe: Recipe) -> dict[str, Verdict]:
    """Return a verdict for every candidate.

    What the noise of the measurement can't tell apart is a tie. A tie goes to one that takes the source's inputs as
    they are, then to the smaller, then to the one closer to the source, then to the one made by fewer passes, then by
    the recipe's order (objective latency; the others likewise).
    """
    limits = {candidate.name: over_budget(candidate.measurements, recipe.budget) for candidate in candidates}
    front = pareto_front(candidates, recipe.budget)
    servable = [candidate for candidate in candidates if candidate.servable]
    contest = _Contest(recipe)
    eligible = contest.ranked([candidate for candidate in servable if not limits[candidate.name]])
    others = contest.ranked([candidate for candidate in servable if limits[candidate.name]])
    reasons = contest.reasons(eligible)
    verdicts = {}
    for rank, candidate in enumerate([*eligible, *others]):
        reason, tied = reasons.get(candidate.name, ("; ".join(limits[candidate.name]), False))
        verdicts[candidate.name] = Verdict(rank, candidate in eligible, candidate.name in front, reason, tied)
    for candidate in candidates:
        if not candidate.servable:
            reason = "the source model: what the others are compared with"
            verdicts[candidate.name] = Verdict(
                len(servable), not limits[candidate.name], candidate.name in front, reason
            )
    return verdicts


def conditions(measurements: Measurements, budget: Budget) -> Latency:
    """Return the latency at the budget's batch size and thread count."""
    latency = measurements.at(budget.at.batch, resolve_threads(budget.at.threads))
    assert latency is not None, "recipe validation guarantees that the budget's conditions are measured"
    return latency


def over_budget(measurements: Measurements, budget: Budget) -> list[str]:
    """Return one phrase for each limit that is not met."""
    broken = []
    allowed = budget.allowed_drop(measurements.quality.source)
    quality = measurements.quality
    if not quality.drop <= allowed + 1e-12:
        broken.append(
            f"{quality.metric} {quality.value:.4f} is {quality.drop:.4f} worse than the source's "
            f"{quality.source:.4f} (allowed {allowed:.4g})"
        )
    latency = conditions(measurements, budget)
    limits = (
        ("p95 latency", latency.p95, budget.p95_ms, "ms"),
        ("peak memory", measurements.peak_rss_mb, budget.peak_rss_mb, "MiB"),
        ("size", measurements.size_mb, budget.size_mb, "MB"),
    )
    for what, value, limit, unit in limits:
        if limit is not None and value > limit:
            broken.append(f"{what} {value:.4g} {unit} is over {limit:g} {unit}")
    return broken


Sieve = Callable[[list[Candidate]], list[Candidate]]


class _Contest:
    """Ranks by one sieve after another: each keeps what it can't tell from the best of those that are left."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        latency, size, quality = (("latency", self._fastest), ("size", self._smallest), ("quality", self._closest))
        first = {"latency": latency, "size": size, "quality": quality}[recipe.objective]
        rest = [sieve for sieve in (latency, size, quality) if sieve is not first]
        inputs: tuple[str, Sieve] = ("inputs", self._straight)
        self._sieves: list[tuple[str, Sieve]] = [first, inputs, *rest, ("passes", self._simplest)]

    def ranked(self, candidates: list[Candidate]) -> list[Candidate]:
        left, ordered = list(candidates), []
        while left:
            best = self._best(left)[0]
            ordered.append(best)
            left.remove(best)
        return ordered

    def reasons(self, ranked: list[Candidate]) -> dict[str, tuple[str, bool]]:
        """Return (reason, whether it is a tie) for each; the first has won."""
        if not ranked:
            return {}
        winner, lost_by = self._best(ranked)
        objective = self._recipe.objective
        tied = [name for name, what in lost_by.items() if what != objective]
        found = {}
        for candidate in ranked[1:]:
            what = lost_by.get(candidate.name, "order")
            words = self._comparison(what, candidate, winner)
            tie = what != objective
            found[candidate.name] = (f"a tie with the winner in {objective}; {words}" if tie else words, tie)
        ties = f"; a tie with {', '.join(tied)}, whose reasons say what decided" if tied else ""
        found[winner.name] = (f"best {objective} within the budget{ties}", False)
        return found

    def _best(self, group: list[Candidate]) -> tuple[Candidate, dict[str, str]]:
        """Return the best of a group, and the sieve that each of the others was lost in."""
        lost_by: dict[str, str] = {}
        for what, sieve in self._sieves:
            kept = sieve(group)
            lost_by |= {candidate.name: what for candidate in group if candidate not in kept}
            group = kept
        lost_by |= {candidate.name: "order" for candidate in group[1:]}
        return group[0], lost_by

    def _fastest(self, group: list[Candidate]) -> list[Candidate]:
        first = min(group, key=lambda candidate: self._latency(candidate).p50)
        return [candidate for candidate in group if not _faster(self._latency(first), self._latency(candidate))]

    def _straight(self, group: list[Candidate]) -> list[Candidate]:
        return [candidate for candidate in group if not candidate.turned] or group

    def _smallest(self, group: list[Candidate]) -> list[Candidate]:
        least = min(candidate.measurements.size_mb for candidate in group)
        return [candidate for candidate in group if candidate.measurements.size_mb <= least * (1 + SAME_SIZE)]

    def _closest(self, group: list[Candidate]) -> list[Candidate]:
        quality = min((candidate.measurements.quality for candidate in group), key=lambda quality: quality.drop)
        most = quality.drop + SAME_QUALITY * abs(quality.source)
        return [candidate for candidate in group if candidate.measurements.quality.drop <= most]

    def _simplest(self, group: list[Candidate]) -> list[Candidate]:
        fewest = min(candidate.steps for candidate in group)
        return [candidate for candidate in group if candidate.steps == fewest]

    def _latency(self, candidate: Candidate) -> Latency:
        return conditions(candidate.measurements, self._recipe.budget)

    def _comparison(self, what: str, candidate: Candidate, winner: Candidate) -> str:
        mine, best = candidate.measurements, winner.measurements
        if what == "latency":
            return f"p50 {self._latency(candidate).p50:.3g} ms, the winner's {self._latency(winner).p50:.3g} ms"
        if what == "inputs":
            return "it takes its inputs in another form than the source, the winner as the source does"
        if what == "size":
            return f"size {mine.size_mb:.3g} MB, the winner's {best.size_mb:.3g} MB"
        if what == "quality":
            return f"quality drop {mine.quality.drop:.4f}, the winner's {best.quality.drop:.4f}"
        if what == "passes":
            return f"made by {candidate.steps} passes, the winner by {winner.steps}"
        return "as good in all; the recipe names the winner first"


def _faster(ours: Latency, theirs: Latency) -> bool:
    """True when the difference is beyond the noise; without rounds to compare, when it is large enough to matter."""
    if ours.rounds and len(ours.rounds) == len(theirs.rounds):
        return is_faster(ours.rounds, theirs.rounds)
    return ours.p50 < theirs.p50 * (1 - MATERIAL)


def pareto_front(candidates: list[Candidate], budget: Budget) -> set[str]:
    """Return the names on the front of quality drop against p50 latency, the source included."""
    points = {c.name: (c.measurements.quality.drop, conditions(c.measurements, budget).p50) for c in candidates}
    return {
        name
        for name, (drop, latency) in points.items()
        if not any(
            other_drop <= drop and other_latency <= latency and (other_drop, other_latency) != (drop, latency)
            for other_drop, other_latency in points.values()
        )
    }
