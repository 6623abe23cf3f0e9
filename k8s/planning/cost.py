"""Pods, machines and money that a rate takes, variant by variant: `hone capacity plan`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field

from hone.capacity import Capacity, Slo, read_capacity
from hone.errors import HoneError
from hone.records import Record

from ..numbers import HEADROOM, SPARE_PODS, cores_of, memory_of, pods_for
from ..prices import HOURS, Price

ON_GPU = ("cuda", "tensorrt")
"""Words in the names of variants that run on a GPU; a pod gets one, as in `overlays/cuda`."""


class Waste(Record):
    """What pods could hold beyond the load, as shares of what they hold within the limit."""

    share: float = Field(description="All of it: paid for, and not used by the load.")
    headroom: float = Field(description="Kept for load that grows while a pod starts.")
    spare: float = Field(description="Of pods that may be lost.")
    rounding: float = Field(description="Pods are whole, and there are two at least.")


class Cost(Record):
    """What the pods of a variant cost, in the currency of the prices."""

    hour: float
    day: float
    month: float = Field(description="730 hours.")
    per_million: float = Field(description="Predictions, at the planned rate all the time.")
    day_by_resource: dict[str, float] = Field(description="cpu, memory and gpu.")
    day_by_purpose: dict[str, float] = Field(description="load, headroom, spare and rounding.")
    budget_share: float | None = Field(None, description="Of the budget; null without one.")


class VariantCost(Record):
    """What holds the rate with one variant."""

    model: str
    file: str
    pod_rate: float = Field(description="Requests per second that one pod holds within the limit.")
    proven: bool = Field(description="`pod_rate` is a bound at 95 % confidence; else the search's result.")
    pods: int
    pod_cores: int | None = Field(description="Null: not measured.")
    pod_memory_mib: int | None = Field(description="Null: not measured.")
    pod_gpus: int
    waste: Waste
    cost: Cost | None = Field(description="Null: not all of it has a price, or was measured.")
    notes: list[str]

    @property
    def name(self) -> str:
        return _name(self.model)


class Unfit(Record):
    """A capacity that says nothing of what was asked."""

    file: str
    why: str


class CostPlan(Record):
    """`hone capacity plan --out FILE`."""

    schema_version: Literal[1] = 1
    kind: Literal["cost-plan"] = "cost-plan"
    rate: float = Field(description="Requests per second to hold.")
    rows: int = Field(description="Predictions in each request.")
    slo: Slo
    prices: dict[str, float]
    budget_hour: float | None
    variants: list[VariantCost] = Field(description="The cheapest first.")
    cheapest: str | None = Field(description="Tag of the cheapest that holds the rate; null: none has a cost.")
    unfit: list[Unfit]
    notes: list[str] = Field(description="What holds for several variants.")


NO_PRICES = Price()


@dataclass(frozen=True)
class Demand:
    """What is to be held, and with what.

    Attributes:
        rate: requests/s.
        rows: in each request.
        slo: percentile, limit and share of errors.
        spare: pods that may be lost.
        price: of machines.
        budget_hour: what may be spent for an hour; None: no limit.
        gpu_variants: names of variants that run on a GPU, beside those that say so.
    """

    rate: float
    rows: int
    slo: Slo
    price: Price = NO_PRICES
    spare: int = SPARE_PODS
    budget_hour: float | None = None
    gpu_variants: tuple[str, ...] = ()


def plan_cost(files: Sequence[Path], demand: Demand) -> CostPlan:
    """Return what each variant takes, the cheapest first; without prices in the order of the pods.

    Raises:
        HoneError: a file can't be read, two are of one variant, or none fits what was asked.
    """
    variants, unfit, seen, hosts = [], [], dict[str, Path](), set[str]()
    for file in files:
        capacity = read_capacity(file)
        if capacity.model in seen:
            raise HoneError(f"{file}: is of {capacity.model}, as {seen[capacity.model]} is; give one for each variant")
        seen[capacity.model] = file
        why = _unfit(capacity, demand)
        if why:
            unfit.append(Unfit(file=str(file), why=why))
        else:
            variants.append(_variant(capacity, file, demand))
            hosts.add(f"{capacity.host.get('cpu')}, {capacity.host.get('cores')} cores")
    if not variants:
        raise HoneError("no capacity fits: " + "; ".join(f"{each.file}: {each.why}" for each in unfit))
    if unknown := set(demand.gpu_variants) - {variant.name for variant in variants}:
        raise HoneError(f"--gpu: no capacity of '{min(unknown)}'; there are {', '.join(v.name for v in variants)}")
    variants.sort(key=lambda variant: (variant.cost is None, variant.cost.hour if variant.cost else variant.pods))
    cheapest = variants[0].model if variants[0].cost else None
    several = f"measured on several hosts, which are compared with the variants: {'; '.join(sorted(hosts))}"
    return CostPlan(
        rate=demand.rate, rows=demand.rows, slo=demand.slo, prices=asdict(demand.price),
        budget_hour=demand.budget_hour, variants=variants, cheapest=cheapest, unfit=unfit,
        notes=[several] if len(hosts) > 1 else [],
    )  # fmt: skip


def _unfit(capacity: Capacity, demand: Demand) -> str:
    """Return why a capacity says nothing of what was asked, and what to do; empty: it does."""
    measured, asked = capacity.slo, demand.slo
    again = f"measure it: hone bench capacity {capacity.model} --{asked.percentile.removesuffix('_ms')} "
    again += f"{asked.limit_ms:g}ms --rows {demand.rows} --errors {asked.errors:g}"
    if (measured.percentile, measured.limit_ms) != (asked.percentile, asked.limit_ms):
        return f"was measured with {measured.words}, not with {asked.words}; {again}"
    if measured.errors > asked.errors:
        return f"was measured with errors up to {measured.errors:.2%}, not {asked.errors:.2%}; {again}"
    if capacity.rows != demand.rows:
        return f"was measured with {capacity.rows} row(s) a request, not {demand.rows}; give --rows, or {again}"
    if capacity.safe_rate <= 0:
        return f"held no rate with {measured.words}"
    return ""


def _variant(capacity: Capacity, file: Path, demand: Demand) -> VariantCost:
    trial = capacity.at_capacity
    pods = pods_for(capacity, demand.rate, demand.spare)
    cores = None if trial.cpu_cores is None else cores_of(trial.cpu_cores)
    memory = None if trial.rss_mb is None else memory_of(trial.rss_mb)
    name = _name(capacity.model)
    gpus = int(name in demand.gpu_variants or bool(set(name.split("-")) & set(ON_GPU)))
    waste = _waste(demand, pods, capacity.safe_rate)
    missing = _missing(demand.price, cores, memory, gpus)
    cost = None
    if demand.price.known and not missing:
        cost = _cost(demand, demand.price.parts(cores or 0, memory or 0, gpus), pods, waste)
    notes = [f"{name}: {missing}, so its cost is not known"] if missing else []
    if capacity.rate_lower_95 is None:
        notes.append(f"{name}: no rate was proven; planned with {capacity.rate:g}/s, where the search ended")
    if capacity.limited_by == "generator":
        notes.append(f"{name}: the load generator was the limit; a pod may hold more")
    return VariantCost(
        model=capacity.model, file=str(file), pod_rate=capacity.safe_rate, proven=capacity.rate_lower_95 is not None,
        pods=pods, pod_cores=cores, pod_memory_mib=memory, pod_gpus=gpus, waste=waste, cost=cost, notes=notes,
    )  # fmt: skip


def _name(tag: str) -> str:
    return tag.partition(":")[2] or tag


def _missing(price: Price, cores: int | None, memory: int | None, gpus: int) -> str:
    """Return what of a pod's cost can't be known; empty: nothing."""
    lacking = [word for word, value in (("processor", cores), ("memory", memory)) if value is None]
    if lacking:
        return (
            f"{' and '.join(lacking)} {'were' if len(lacking) > 1 else 'was'} not measured, because the service ran "
            "elsewhere (measure it without --url)"
        )
    if gpus and price.known and not price.gpu_hour:
        return "it takes a GPU, which has no price (give --gpu-hour)"
    return ""


def _waste(demand: Demand, pods: int, pod_rate: float) -> Waste:
    paid = pods * pod_rate
    headroom = demand.rate * (1 / HEADROOM - 1) / paid
    spare = demand.spare / pods
    share = 1 - demand.rate / paid
    return Waste(share=share, headroom=headroom, spare=spare, rounding=max(0.0, share - headroom - spare))


def _cost(demand: Demand, pod_hour: dict[str, float], pods: int, waste: Waste) -> Cost:
    hour = pods * sum(pod_hour.values())
    day = HOURS["day"] * hour
    purposes = {"load": 1 - waste.share, "headroom": waste.headroom, "spare": waste.spare, "rounding": waste.rounding}
    return Cost(
        hour=hour,
        day=day,
        month=HOURS["month"] * hour,
        per_million=1e6 * hour / (3600 * demand.rate * demand.rows),
        day_by_resource={name: HOURS["day"] * pods * value for name, value in pod_hour.items()},
        day_by_purpose={name: day * share for name, share in purposes.items()},
        budget_share=None if demand.budget_hour is None else hour / demand.budget_hour,
    )


def require_within_budget(plan: CostPlan) -> None:
    """Raise BudgetError unless the cheapest variant is within the budget."""
    from hone.errors import BudgetError

    cost = plan.variants[0].cost
    if plan.budget_hour is None:
        return
    if cost is None:
        raise HoneError("--budget: no variant's cost is known; the notes say why")
    if cost.hour > plan.budget_hour:
        raise BudgetError(
            f"{plan.cheapest}, the cheapest, takes {cost.hour / plan.budget_hour:.0%} of the budget: "
            f"{cost.month:,.2f} of {plan.budget_hour * HOURS['month']:,.2f} a month"
        )


def table(plan: CostPlan) -> list[tuple[str, ...]]:
    """Return the variants as rows of a table, under their heads."""
    heads: tuple[str, ...] = ("variant", "per pod", "pods", "cores", "memory", "GPUs", "waste")
    priced = any(plan.prices.values())
    money = ("an hour", "a day", "a month", "a million")
    rows = [(*heads, *(money if priced else ()), *(("budget",) if plan.budget_hour else ()))]
    for variant in plan.variants:
        cost, pods = variant.cost, variant.pods
        cells = [
            ("* " if variant.model == plan.cheapest else "  ") + variant.name,
            f"{variant.pod_rate:,.0f}/s",
            str(pods),
            "?" if variant.pod_cores is None else str(pods * variant.pod_cores),
            "?" if variant.pod_memory_mib is None else f"{pods * variant.pod_memory_mib:,} MiB",
            str(pods * variant.pod_gpus),
            f"{variant.waste.share:.0%}",
        ]
        if priced:
            sums = (cost.hour, cost.day, cost.month, cost.per_million) if cost else None
            cells += [f"{value:,.2f}" if value >= 0.1 else f"{value:.4f}" for value in sums] if sums else ["?"] * 4
        if plan.budget_hour:
            cells.append("?" if cost is None else f"{cost.hour / plan.budget_hour:.0%}")
        rows.append(tuple(cells))
    return rows


def breakdown(plan: CostPlan) -> list[str]:
    """Return what a day of the cheapest variant is paid for, in two lines; none without prices."""
    cost = plan.variants[0].cost
    if cost is None:
        return []

    def shares(parts: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:,.2f} ({value / cost.day:.0%})" for name, value in parts.items() if value)

    return [
        f"a day of {plan.variants[0].name}: {shares(cost.day_by_resource)}",
        f"of it for: {shares(cost.day_by_purpose)}",
    ]
