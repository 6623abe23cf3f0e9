"""Options of commands that compute with prices and a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hone.k8s.prices import Price

PRICE = click.FloatRange(min=0)


def price_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of what machines cost."""
    for option in (
        click.option("--gpu-hour", type=PRICE, default=0.0, help="Price of a GPU for an hour."),
        click.option("--gb-hour", type=PRICE, default=0.0, help="Price of a GB of memory for an hour."),
        click.option("--cpu-hour", type=PRICE, default=0.0, help="Price of a core for an hour."),
    ):
        command = option(command)
    return command


def prices(cpu_hour: float, gb_hour: float, gpu_hour: float, budget: str | None) -> tuple[Price, float | None]:
    """Return what these options and --budget say: prices, and what may be spent for an hour.

    Raises:
        HoneError: the budget is none.
        click.UsageError: prices are missing.
    """
    from hone.k8s.prices import Price, parse_budget

    price = Price(cpu_hour, gb_hour, gpu_hour)
    if gpu_hour and not (cpu_hour or gb_hour):
        raise click.UsageError("--gpu-hour: pods take cores and memory, too; give --cpu-hour and --gb-hour")
    budget_hour = parse_budget(budget) if budget else None
    if budget_hour is not None and not price.known:
        raise click.UsageError("--budget: give prices, --cpu-hour and --gb-hour")
    return price, budget_hour
