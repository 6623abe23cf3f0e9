"""What a search of serving settings found: `tune.json`. Written by `hone bench capacity --tune`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hone.capacity import Slo
from hone.k8s.prices import Price
from hone.plan import Plan
from hone.records import Record

HOURS_PER_SECOND = 1 / 3600


UNTRIED = "not tried: the time was too short; give more --minutes"
"""What a candidate is out with that the first round had no time for."""

UNMEASURED = "can't be measured: "
"""What a candidate is out with that the generator could not keep up with."""


class Choice(Record):
    """Settings that a service is started with; 0: the service chooses."""

    model: str = Field(description="The tag of the variant.")
    workers: int = 1
    threads: int = 0
    in_flight: int = 0
    max_batch_rows: int = 0

    @property
    def words(self) -> str:
        if not self.threads:
            return f"{self.model}, {_count(self.workers, 'worker')}, the rest as the service chooses"
        return (
            f"{self.model}, {_count(self.workers, 'worker')} x {_count(self.threads, 'thread')}, "
            f"{self.in_flight} in flight, {_count(self.max_batch_rows, 'row')}"
        )


class Prices(Record):
    """What an hour costs, in any currency."""

    cpu_hour: float | None = Field(None, ge=0, description="Of a core.")
    gb_hour: float | None = Field(None, ge=0, description="Of a GB of memory.")

    @property
    def given(self) -> bool:
        return self.cpu_hour is not None or self.gb_hour is not None


class Cost(Record):
    """What a candidate takes when it is busy."""

    cores: float
    memory_mb: float

    def price(self, prices: Prices) -> float | None:
        """Return the price of an hour; None where there are no prices."""
        if not prices.given:
            return None
        price = Price(prices.cpu_hour or 0.0, prices.gb_hour or 0.0)
        return sum(price.parts(self.cores, self.memory_mb).values())

    def axes(self, prices: Prices) -> tuple[float, ...]:
        """Return what is to be low: the price, or cores and memory where there are no prices."""
        price = self.price(prices)
        return (self.cores, self.memory_mb) if price is None else (price,)


class Tried(Record):
    """A candidate, and what came of it."""

    choice: Choice
    plan: Plan | None = Field(None, description="How it ran; null when it didn't.")
    rates: list[float] = Field([], description="Requests/s at which a rising load crossed the limit, by round.")
    rate: float | None = Field(None, description="Their mean: it ranks, and is no capacity.")
    cost: Cost | None = None
    price_per_hour: float | None = None
    out: str = Field("", description="Why it is not in the front, in words; empty: it is.")
    proven: float | None = Field(None, description="Requests/s within the limit, with 95 % confidence; of the front.")
    capacity: float | None = Field(None, description="As the proof's runs estimate it; of the front.")

    @property
    def holds(self) -> float:
        """The rate that it counts with: what is proven, else what its proof estimates, else what ranks it."""
        return self.proven or self.capacity or self.rate or 0.0

    def per_million(self, prices: Prices) -> float | None:
        """Return the price of a million requests at the rate that it holds; None without prices."""
        price = self.cost.price(prices) if self.cost else None
        return None if price is None or not self.holds else price * HOURS_PER_SECOND * 1e6 / self.holds


class Tuning(Record):
    """`tune.json`: a whole search."""

    schema_version: Literal[1] = 1
    kind: Literal["tuning"] = "tuning"
    model: str = Field(description="As it was asked for.")
    created: str
    host: dict[str, Any]
    command: str
    slo: Slo
    rows: int = Field(description="Rows in each request.")
    prices: Prices
    seconds: list[float] = Field(description="Of a trial in each round.")
    took_s: float
    tried: list[Tried]
    winner: int = Field(description="Its place in `tried`.")

    @property
    def best(self) -> Tried:
        return self.tried[self.winner]

    @property
    def front(self) -> list[Tried]:
        """What no other candidate beats in rate and cost, the most rate first."""
        return sorted((tried for tried in self.tried if not tried.out), key=lambda tried: -tried.holds)

    @property
    def notes(self) -> list[str]:
        """What a person should know of the search, in words."""
        found = []
        unmeasured = sum(tried.out.startswith(UNMEASURED) for tried in self.tried)
        if unmeasured:
            count = _count(unmeasured, "candidate")
            found.append(f"the load generator was the limit of {count}, which may hold more: run it on another host")
        if untried := sum(tried.out == UNTRIED for tried in self.tried):
            found.append(f"{untried} of {_count(len(self.tried), 'candidate')} {UNTRIED}")
        if len(self.seconds) == 1 and sum(tried.rate is not None for tried in self.tried) > 1:
            found.append("the time was enough for one round: nothing is told apart beyond doubt; give more --minutes")
        return found

    def table(self) -> list[str]:
        """Return the front, what is left out of it and the notes, as lines for the terminal."""
        head = f"{'':2}{'requests/s':>12}{'proven':>10}{'cores':>8}{'MiB':>8}"
        head += f"{'price/h':>10}{'per million':>13}" if self.prices.given else ""
        left = sorted(
            (tried for tried in self.tried if tried.out not in ("", UNTRIED)), key=lambda tried: -(tried.rate or 0.0)
        )
        lines = [self._line(tried) for tried in [*self.front, *left]]
        return [f"{head}  settings", *lines, *(f"note: {note}" for note in self.notes)]

    def _line(self, tried: Tried) -> str:
        cost = tried.cost
        line = "* " if tried is self.best else "  "
        line += f"{_number(tried.capacity or tried.rate, 0):>12}{_number(tried.proven, 0):>10}"
        line += f"{_number(cost.cores if cost else None, 2):>8}{_number(cost.memory_mb if cost else None, 0):>8}"
        if self.prices.given:
            line += f"{_number(tried.price_per_hour, 4):>10}{_number(tried.per_million(self.prices), 4):>13}"
        return f"{line}  {tried.choice.words}" + (f": {tried.out}" if tried.out else "")


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
