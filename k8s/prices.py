"""What machines cost, as the user says, and what may be spent; in whatever currency the prices are."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from hone.errors import HoneError

HOURS = {"hour": 1.0, "day": 24.0, "week": 168.0, "month": 730.0, "year": 8760.0}
"""Of each unit of time; a month is a twelfth of a year, as in the price lists of clouds."""


@dataclass(frozen=True)
class Price:
    """Prices for an hour: of a core, of a GB (10^9 bytes) of memory, and of a GPU."""

    cpu_hour: float = 0.0
    gb_hour: float = 0.0
    gpu_hour: float = 0.0

    @property
    def known(self) -> bool:
        return any((self.cpu_hour, self.gb_hour, self.gpu_hour))

    def parts(self, cores: float, memory_mib: float, gpus: int = 0) -> dict[str, float]:
        """Return what a pod costs for an hour, by what it is for."""
        memory = self.gb_hour * memory_mib * 1.048576 / 1000
        return {"cpu": self.cpu_hour * cores, "memory": memory, "gpu": self.gpu_hour * gpus}


def parse_budget(text: str) -> float:
    """Return what may be spent for an hour, of a text such as `500/month`.

    Raises:
        HoneError: it is no amount for a unit of time.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*/\s*([a-z]+)\s*", text)
    if not match or match[2] not in HOURS or not float(match[1]):
        raise HoneError(f"--budget: '{text}' is no budget; write 500/month, or for an hour, day, week or year")
    return float(match[1]) / HOURS[match[2]]


def price_rules(price: Price, budget_hour: float | None) -> dict[str, Any]:
    """Return prices and budget as a group of recording rules, which those of `monitoring/rules.yaml` compute with."""
    values = {
        "hone:price:cpu_hour": price.cpu_hour,
        "hone:price:gb_hour": price.gb_hour,
        "hone:price:gpu_hour": price.gpu_hour,
    }
    if budget_hour is not None:
        values["hone:budget:per_hour"] = budget_hour
    rules = [{"record": name, "expr": f"vector({value!r})"} for name, value in values.items()]
    return {"name": "hone.prices", "interval": "30s", "rules": rules}
