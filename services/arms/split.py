"""A split: the arms of a model, the share of requests that each gets, and which request goes to which."""

from __future__ import annotations

import math
import random
import secrets
import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from hone.errors import first_problem
from hone.names import is_tag_part

from ..http.failures import RequestError

WHOLE = 100.0
MOST_ARMS = 8
"""An arm's part of a caller's hash is eight bytes of the 64 that BLAKE2b gives."""

NAMES = r"^[A-Za-z0-9][A-Za-z0-9-]{0,63}$"
"""Of headers, as a client writes them."""

UNIT = 2.0**-64

MOST_KNOWN = 4096
"""Callers whose numbers are remembered in a worker."""


class Arm(BaseModel):
    """One version in a split.

    Attributes:
        name: of it, which callers, metrics and logs see.
        version: of the model.
        weight: percent of the requests.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    weight: float = Field(ge=0, le=WHOLE)

    @field_validator("name")
    @classmethod
    def _named(cls, name: str) -> str:
        if not is_tag_part(name):
            raise ValueError("an arm's name has letters, digits, '.', '_' and '-'")
        return name


class Split(BaseModel):
    """How the requests for a model are shared out.

    Attributes:
        model: whose paths without a version it is about.
        arms: the first is the stable one, which the others are compared with.
        sticky: header whose value decides; the same value is answered by the same arm. Empty: chance decides.
        salt: hashed with that value, so that another salt deals callers anew.
        fallback: a request that an arm fails on or sheds goes to the next one.
        compare: share of the requests of the other arms that the stable one computes, too, to compare the answers.
        id: of these arms and how they are chosen; only the weights change under it.
        brought: versions that were loaded for it, and leave with it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    arms: tuple[Arm, ...] = Field(min_length=1, max_length=MOST_ARMS)
    sticky: str = Field("", pattern=f"{NAMES}|^$")
    salt: str = Field("", max_length=64)
    fallback: bool = False
    compare: float = Field(0.0, ge=0, le=1)
    id: str = Field(default_factory=lambda: secrets.token_hex(8), pattern=r"^[0-9a-f]{16}$")
    brought: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Split:
        total = math.fsum(arm.weight for arm in self.arms)
        if abs(total - WHOLE) > 1e-6:
            raise ValueError(f"the weights are {total:g} % together; they must be 100 %")
        if len({arm.name for arm in self.arms}) < len(self.arms):
            raise ValueError("two arms have one name")
        return self

    @property
    def weights(self) -> tuple[float, ...]:
        return tuple(arm.weight for arm in self.arms)

    @property
    def stable(self) -> Arm:
        return self.arms[0]

    @property
    def versions(self) -> set[str]:
        return {arm.version for arm in self.arms}

    def arm(self, name: str) -> Arm:
        """Return an arm by its name; raises RequestError when there is none."""
        found = next((arm for arm in self.arms if arm.name == name), None)
        if found is None:
            raise RequestError(f"no arm '{name[:100]}'; there is {', '.join(arm.name for arm in self.arms)}")
        return found

    def weighed_anew(self, other: Split) -> Split | None:
        """Return this split with the weights of another one of the same arms and rules; None where more differs."""
        arms = tuple(arm.model_copy(update={"weight": other._weight(arm)}) for arm in self.arms)
        made = self.model_copy(update={"arms": arms})
        same = made.model_dump(exclude={"id", "brought"}) == other.model_dump(exclude={"id", "brought"})
        return made if same else None

    def _weight(self, arm: Arm) -> float:
        return next((one.weight for one in self.arms if one.name == arm.name), -1.0)


def parse_split(content: Any) -> Split:
    """Return a split from plain values; raises RequestError naming what is wrong with it."""
    try:
        return Split.model_validate(content)
    except ValidationError as error:
        raise RequestError(f"no split: {first_problem(error)}") from None


class StickyArms:
    """Deals callers out so that each keeps an arm.

    Each arm draws a number for a caller, by its place, and the arm whose number is best for its weight gets them
    (weighted rendezvous hashing: Schindelhauer and Schomaker, Weighted distributed hash tables, SPAA 2005). Who has
    an arm keeps it while that arm's weight grows and no other one's does. Every worker and replica draws the same.

    Args:
        salt: another one draws other numbers.
        arms: how many there are.
    """

    def __init__(self, salt: bytes, arms: int) -> None:
        self._salt = salt + b"\0"
        self._size = 8 * arms
        self._unpack = struct.Struct(f"<{arms}Q").unpack
        self._numbers = lru_cache(MOST_KNOWN)(self._draw)

    def choose(self, caller: bytes, weights: Sequence[float]) -> int:
        """Return the place of a caller's arm."""
        best, least = 0, math.inf
        for place, number in enumerate(self._numbers(caller)):
            weight = weights[place]
            if weight and number < least * weight:
                best, least = place, number / weight
        return best

    def _draw(self, caller: bytes) -> tuple[float, ...]:
        """Return an exponentially distributed number for each arm."""
        drawn = self._unpack(blake2b(self._salt + caller, digest_size=self._size).digest())
        return tuple(-math.log((draw + 0.5) * UNIT) for draw in drawn)


def chance_arm(weights: Sequence[float], draw: Callable[[], float] = random.random) -> int:
    """Return the place of an arm, drawn by the weights."""
    left = draw() * WHOLE
    for place in range(len(weights) - 1, 0, -1):
        left -= weights[place]
        if left < 0:
            return place
    return 0
