"""Select: which variants meet the budget, which is best, and why each of the others lost."""

from __future__ import annotations

from dataclasses import dataclass

from converters.evaluate import resolve_threads
from hone.artifact import Latency, Measurements
from hone.recipe import Budget, Recipe


@dataclass(frozen=True)
class Candidate:
    """A measured variant; `servable` is False for the source itself."""

    name: str
    measurements: Measurements
    servable: bool = True


@dataclass(frozen=True)
class Verdict:
    """Where a variant stands.

    Attributes:
        rank: among eligible variants first, then the others; 0 is the winner.
        eligible: meets every limit of the budget.
        pareto: no other variant is at least as good in quality and latency, and better in one.
        reason: why it lost, or what it won by.
    """

    rank: int
    eligible: bool
    pareto: bool
    reason: str


def select(candidates: list[Candidate], recipe: Recipe) -> dict[str, Verdict]:
    """Return a verdict for every candidate.

    Ties in the objective are broken by latency, then size, then the recipe's order.
    """
    limits = {candidate.name: over_budget(candidate.measurements, recipe.budget) for candidate in candidates}
    front = pareto_front(candidates, recipe.budget)
    servable = [candidate for candidate in candidates if candidate.servable]
    ordered = sorted(servable, key=lambda c: (bool(limits[c.name]), *_merit(c.measurements, recipe)))
    winner = ordered[0] if ordered and not limits[ordered[0].name] else None
    verdicts = {}
    for rank, candidate in enumerate(ordered):
        broken = limits[candidate.name]
        reason = "; ".join(broken) if broken else _comparison(candidate, winner, recipe)
        verdicts[candidate.name] = Verdict(rank, not broken, candidate.name in front, reason)
    for candidate in candidates:
        if not candidate.servable:
            reason = "the source model: what the others are compared with"
            verdicts[candidate.name] = Verdict(
                len(ordered), not limits[candidate.name], candidate.name in front, reason
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
    if quality.drop > allowed + 1e-12:
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


def _merit(measurements: Measurements, recipe: Recipe) -> tuple[float, ...]:
    latency = conditions(measurements, recipe.budget).p50
    size = measurements.size_mb
    first = {"latency": latency, "size": size, "quality": measurements.quality.drop}[recipe.objective]
    return (first, latency, size)


def _comparison(candidate: Candidate, winner: Candidate | None, recipe: Recipe) -> str:
    assert winner is not None
    mine, best = _merit(candidate.measurements, recipe)[0], _merit(winner.measurements, recipe)[0]
    if candidate is winner:
        return f"best {recipe.objective} within the budget"
    if recipe.objective == "quality":
        return f"quality drop {mine:.4f}, the winner's {best:.4f}"
    what, unit = ("p50", "ms") if recipe.objective == "latency" else ("size", "MB")
    return f"{what} {mine:.3g} {unit}, the winner's {best:.3g} {unit}"


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
