"""Scenarios: the shape of a load."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hone.errors import HoneError, did_you_mean, first_problem

Shape = Literal["poisson", "constant", "burst", "ramp", "day", "trace"]
BURST = 10
"""Requests that come at once in a burst."""
NIGHT = 0.2
"""Of a day's mean rate, what arrives at its quietest; noon has as much more as the night has less."""
MOST_ARRIVALS = 20_000_000
ROUNDING = 0.1
"""So far from 100 % shares of requests may be together, as thirds of one digit are."""


class Scenario(BaseModel):
    """A load: who sends what, how fast, for how long.

    Open loop (the default) sends at times of its own, whatever the service answers: a slow answer doesn't slow the
    callers down, as in production. Closed loop has a number of callers who each wait for an answer before they send
    again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["open", "closed"] = "open"
    rate: float | None = Field(None, gt=0, description="Open loop: mean requests per second; null asks for a probe.")
    arrival: Shape = Field("poisson", description="Open loop: how requests arrive.")
    users: int = Field(8, gt=0, description="Closed loop: callers.")
    rows: int = Field(1, gt=0, description="Rows in each request, where there are no sizes.")
    sizes: tuple[tuple[int, float], ...] = Field((), description="(rows in a request, share of the requests).")
    duration_s: float = Field(20.0, gt=0)
    warm_up_s: float = Field(1.0, ge=0, description="Before the measurement; its requests don't count.")
    seed: int = 0

    @model_validator(mode="after")
    def _rate_is_open(self) -> Scenario:
        if self.kind == "closed" and self.rate is not None:
            raise ValueError("a closed loop has no rate: its callers send when they have an answer")
        if any(rows < 1 or not 0 < share < math.inf for rows, share in self.sizes):
            raise ValueError("sizes are (rows from 1 up, share over 0)")
        return self

    @classmethod
    def from_options(
        cls,
        *,
        rate: float | None = None,
        users: int | None = None,
        rows: int | None = None,
        sizes: str | None = None,
        arrival: str | None = None,
        duration_s: float | None = None,
        seed: int | None = None,
        like: Scenario | None = None,
    ) -> Scenario:
        """Return the scenario of `hone bench`'s options: users make it a closed loop; None is as in `like`.

        Raises:
            HoneError: options that don't go together, or one that can't be read.
        """
        if users is not None and (rate is not None or arrival is not None):
            option = "--rate" if rate is not None else "--arrivals"
            raise HoneError(f"--users makes a closed loop, whose callers set the rate; leave --users or {option} out")
        if rows is not None and sizes is not None:
            raise HoneError("--sizes says how many rows requests have; leave --rows or --sizes out")
        given = {"rate": rate, "users": users, "rows": rows, "duration_s": duration_s, "seed": seed, "arrival": arrival}
        changes: dict[str, object] = {name: value for name, value in given.items() if value is not None}
        if users is not None:
            changes |= {"kind": "closed", "rate": None}
        elif rate is not None or arrival is not None:
            changes["kind"] = "open"
        if rows is not None:
            changes["sizes"] = ()
        elif sizes is not None:
            changes["sizes"] = parse_sizes(sizes)
        try:
            return cls.model_validate({**(like or cls()).model_dump(), **changes})
        except ValueError as error:
            raise HoneError(f"no load: {first_problem(error, 'options')}") from None  # type: ignore[arg-type]

    @property
    def shares(self) -> dict[int, float]:
        """The share of the requests that have so many rows; together 1."""
        sizes = self.sizes or ((self.rows, 1.0),)
        total = sum(share for _, share in sizes)
        shares: dict[int, float] = {}
        for rows, share in sizes:
            shares[rows] = shares.get(rows, 0.0) + share / total
        return shares

    @property
    def words(self) -> str:
        """The load in words: `open loop, 100 requests/s with Poisson arrivals`."""
        shares = sorted(self.shares.items())
        mix = ", ".join(f"{rows} ({share:.0%})" for rows, share in shares)
        size = f"{shares[0][0]} row(s)" if len(shares) == 1 else f"rows: {mix}"
        if self.kind == "closed":
            return f"closed loop, {self.users} callers, {size} a request"
        if self.arrival == "trace":
            return "open loop, arrivals as they were recorded"
        rate = "" if self.rate is None else f"{self.rate:,.1f}".removesuffix(".0") + " requests/s with "
        return f"open loop, {rate}{ARRIVALS[self.arrival]}, {size} a request"

    def arrivals(self) -> np.ndarray:
        """Return arrival times in seconds from the start, in order, the same for the same seed.

        During the warm-up they are Poisson at the mean rate.

        Raises:
            HoneError: they are more than fit into memory, or are a trace's, which a scenario doesn't know.
        """
        assert self.rate is not None
        if self.arrival == "trace":
            raise HoneError("the arrivals are a trace's; give its file again: --trace or --traffic")
        if self.rate * (self.warm_up_s + self.duration_s) > MOST_ARRIVALS:
            raise HoneError(f"{self.rate:g}/s for {self.duration_s:g} s are over {MOST_ARRIVALS:,} requests; give less")
        random = np.random.default_rng(self.seed)
        before = _poisson(random, self.rate, self.warm_up_s)
        return np.concatenate([before, self.warm_up_s + self._shaped(random, self.rate, self.duration_s)])

    def _shaped(self, random: np.random.Generator, rate: float, seconds: float) -> np.ndarray:
        if self.arrival == "constant":
            return np.arange(math.ceil(rate * seconds)) / rate
        if self.arrival == "burst":
            return np.repeat(_poisson(random, rate / BURST, seconds), BURST)
        if self.arrival == "poisson":
            return _poisson(random, rate, seconds)
        # A Poisson process of another rate at every moment: the unit process on the axis of requests expected so far.
        axis = np.linspace(0.0, 1.0, 10_001)
        expected = axis**2 if self.arrival == "ramp" else axis - (1 - NIGHT) * np.sin(2 * np.pi * axis) / (2 * np.pi)
        return np.interp(_poisson(random, 1.0, rate * seconds), expected * rate * seconds, axis * seconds)


ARRIVALS: dict[str, str] = {
    "poisson": "Poisson arrivals",
    "constant": "arrivals at equal distances",
    "burst": f"bursts of {BURST}",
    "ramp": "arrivals that ramp up from none to twice the rate",
    "day": "arrivals over a day's curve",
    "trace": "the arrivals of a trace",
}
assert set(ARRIVALS) == set(get_args(Shape))


def _poisson(random: np.random.Generator, rate: float, seconds: float) -> np.ndarray:
    """Return the times of a Poisson process: exponential gaps."""
    parts, last = [np.zeros(0)], 0.0
    while last < seconds:
        gaps = random.exponential(1 / rate, math.ceil(rate * (seconds - last) * 1.1) + 10)
        parts.append(last + np.cumsum(gaps))
        last = float(parts[-1][-1])
    times = np.concatenate(parts)
    return times[times < seconds]


def parse_sizes(text: str) -> tuple[tuple[int, float], ...]:
    """Return sizes such as `1:70%,8:25%,64:5%`, or with weights, `1:14,8:5,64:1`; a size alone has the weight 1.

    Raises:
        HoneError: a part is none, or shares and weights are mixed, or shares are not 100 % together.
    """
    sizes = []
    percents = 0
    for part in filter(None, (part.strip() for part in text.split(","))):
        rows, _, share = part.partition(":")
        try:
            size, weight = int(rows), float(share.strip().removesuffix("%") or 1)
            percents += share.strip().endswith("%")
        except ValueError:
            size, weight = 0, 0.0
        if size < 1 or not 0 < weight < math.inf:
            raise HoneError(f"--sizes: '{part}' is no size with its share; write 1:70%,8:25%,64:5%")
        sizes.append((size, weight))
    if not sizes:
        raise HoneError("--sizes names no size; write 1:70%,8:25%,64:5%")
    if percents and percents < len(sizes):
        raise HoneError("--sizes: some shares have a % and some have none; write 1:70%,8:30%, or weights: 1:7,8:3")
    total = sum(weight for _, weight in sizes)
    if percents and abs(total - 100) > ROUNDING:
        raise HoneError(f"--sizes: the shares are {total:g}% together, not 100%; weights have no %: 1:7,8:3")
    return tuple(sizes)


def parse_arrival(text: str) -> str:
    """Return a shape of arrivals by its name; raises HoneError with the nearest one."""
    known = [name for name in ARRIVALS if name != "trace"]
    if text not in known:
        raise HoneError(f"--arrivals: there is no '{text}'{did_you_mean(text, known)}")
    return text
