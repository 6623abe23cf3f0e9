"""Scenarios: the shape of a load."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hone.errors import HoneError


class Scenario(BaseModel):
    """A load: who sends what, how fast, for how long.

    Open loop (the default) sends at times drawn from a Poisson process, whatever the service answers: a slow answer
    doesn't slow the callers down, as in production. Closed loop has a number of callers who each wait for an answer
    before they send again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["open", "closed"] = "open"
    rate: float | None = Field(None, gt=0, description="Open loop: requests per second; null asks for a probe.")
    users: int = Field(8, gt=0, description="Closed loop: callers.")
    rows: int = Field(1, gt=0, description="Rows in each request.")
    duration_s: float = Field(20.0, gt=0)
    warm_up_s: float = Field(1.0, ge=0, description="Before the measurement; its requests don't count.")
    seed: int = 0

    @model_validator(mode="after")
    def _rate_is_open(self) -> Scenario:
        if self.kind == "closed" and self.rate is not None:
            raise ValueError("a closed loop has no rate: its callers send when they have an answer")
        return self

    @classmethod
    def from_options(
        cls,
        *,
        rate: float | None = None,
        users: int | None = None,
        rows: int | None = None,
        duration_s: float | None = None,
        seed: int | None = None,
        like: Scenario | None = None,
    ) -> Scenario:
        """Return the scenario of `hone bench`'s options: users make it a closed loop; None is as in `like`.

        Raises:
            HoneError: both a rate and users are given.
        """
        if users is not None and rate is not None:
            raise HoneError("--users makes a closed loop, whose callers set the rate; leave --users or --rate out")
        given = {"rate": rate, "users": users, "rows": rows, "duration_s": duration_s, "seed": seed}
        changes: dict[str, object] = {name: value for name, value in given.items() if value is not None}
        if users is not None:
            changes |= {"kind": "closed", "rate": None}
        elif rate is not None:
            changes["kind"] = "open"
        return cls.model_validate({**(like or cls()).model_dump(), **changes})

    def arrivals(self) -> Iterator[float]:
        """Yield arrival times in seconds from the start: exponential gaps, the same for the same seed."""
        assert self.rate is not None
        generator = random.Random(self.seed)
        moment, end = 0.0, self.warm_up_s + self.duration_s
        while True:
            moment += generator.expovariate(self.rate)
            if moment >= end:
                return
            yield moment
