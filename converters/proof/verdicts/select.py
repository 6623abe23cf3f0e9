"""Select: which variants are proven to meet the budget, which is best, and why each of the others lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hone.artifact import Latency, Measurements
from hone.evidence.bounds import MATERIAL, is_faster
from hone.recipe import Budget, Recipe
from hone.records import Verdict

from ..evaluate import resolve_threads
from .claims import Evidence
from .verdict import Ruling, rule

SAME_SIZE = 0.01
"""Sizes that differ by less than this share are the same."""
SAME_QUALITY = 1e-4
"""So are drops that differ by less than this share of the source's quality."""


@dataclass(frozen=True)
class Candidate:
    """A measured variant.

    Attributes:
        evidence: of what it loses; None for the source itself.
        servable: False for the source itself.
        steps: passes that made it.
        turned: callers send it other inputs than the source takes, such as images channels first.
    """

    name: str
    measurements: Measurements
    evidence: Evidence | None = None
    servable: bool = True
    steps: int = 0
    turned: bool = False


@dataclass(frozen=True)
class Standing:
    """Where a variant stands.

    Attributes:
        rank: among those that are proven first, then the undecided, the safest first, then the others; 0 is the best.
        verdict: on all limits of the budget together.
        pareto: no other variant is at least as good in quality and latency, and better in one.
        reason: why it lost, or what it won by.
        tied: can't be told from the winner by the objective.
        ruling: on its loss; None for the source.
    """

    rank: int
    verdict: Verdict
    pareto: bool
    reason: str
    tied: bool = False
    ruling: Ruling | None = None

    @property
    def eligible(self) -> bool:
        """Proven to meet every limit of the budget."""
        return self.verdict == "met"


def select(candidates: list[Candidate], recipe: Recipe) -> dict[str, Standing]:
    """Return where every candidate stands.

    One that is proven to meet the budget is better than one that may. What the noise of the measurement can't tell
    apart is a tie. A tie goes to one that takes the source's inputs as they are, then to the smaller, then to the one
    closer to the source, then to the one made by fewer passes, then by the recipe's order (objective latency; the
    others likewise).
    """
    budget = recipe.budget
    limits = {candidate.name: over_budget(candidate.measurements, budget) for candidate in candidates}
    front = pareto_front(candidates, budget)
    servable = [candidate for candidate in candidates if candidate.servable]
    evidence = {candidate.name: candidate.evidence for candidate in servable if candidate.evidence is not None}
    could_win = frozenset(candidate.name for candidate in servable if not limits[candidate.name])
    rulings = rule(evidence, budget.confidence, could_win)
    groups: dict[Verdict, list[Candidate]] = {"met": [], "undecided": [], "missed": []}
    for candidate in servable:
        verdict = "missed" if limits[candidate.name] else rulings[candidate.name].verdict
        groups[verdict].append(candidate)
    contest = _Contest(recipe)
    proven, lost = contest.ranked(groups["met"]), contest.ranked(groups["missed"])
    safest = sorted(contest.ranked(groups["undecided"]), key=lambda candidate: _risk(rulings[candidate.name]))
    reasons = contest.reasons(proven)
    found = {}
    for rank, candidate in enumerate([*proven, *safest, *lost]):
        name, ruling = candidate.name, rulings[candidate.name]
        said = "; ".join([*limits[name], *([ruling.reason] if ruling.reason else [])])
        reason, tied = reasons.get(name, (said, False))
        verdict = next(kind for kind, group in groups.items() if candidate in group)
        found[name] = Standing(rank, verdict, name in front, reason, tied, ruling)
    for candidate in candidates:
        if not candidate.servable:
            met: Verdict = "missed" if limits[candidate.name] else "met"
            reason = "the source model: what the others are compared with"
            found[candidate.name] = Standing(len(servable), met, candidate.name in front, reason)
    return found


def _risk(ruling: Ruling) -> float:
    """The most that it may lose, beyond what is allowed; the claims of a list weigh by the worst of them."""
    return float("inf") if ruling.upper is None else ruling.upper - ruling.allowed


def conditions(measurements: Measurements, budget: Budget) -> Latency:
    """Return the latency at the budget's batch size and thread count."""
    latency = measurements.at(budget.at.batch, resolve_threads(budget.at.threads))
    assert latency is not None, "recipe validation guarantees that the budget's conditions are measured"
    return latency


def over_budget(measurements: Measurements, budget: Budget) -> list[str]:
    """Return one phrase for each measured limit that is not met; what is lost in quality has a ruling of its own."""
    broken = []
    latency = conditions(measurements, budget)
    if budget.rows_per_s is not None and latency.rows_per_s < budget.rows_per_s:
        broken.append(f"{latency.rows_per_s:.4g} rows/s are fewer than {budget.rows_per_s:g}")
    limits = (
        ("p50 latency", latency.p50, budget.p50_ms, "ms"),
        ("p95 latency", latency.p95, budget.p95_ms, "ms"),
        ("p99 latency", latency.p99, budget.p99_ms, "ms"),
        ("load time", measurements.load_ms, budget.load_ms, "ms"),
        ("peak memory", measurements.peak_rss_mb, budget.peak_rss_mb, "MiB"),
        ("size", measurements.size_mb, budget.size_mb, "MB"),
    )
    for what, value, limit, unit in limits:
        if limit is not None and value > limit:
            broken.append(f"{what} {value:.4g} {unit} is over {limit:g} {unit}")
    joules = latency.joules_per_1000_rows
    if budget.energy_j is not None and (joules is None or joules > budget.energy_j):
        found = "isn't told by this host" if joules is None else f"{joules:.4g} J is over {budget.energy_j:g} J"
        broken.append(f"energy of 1,000 rows {found}")
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
