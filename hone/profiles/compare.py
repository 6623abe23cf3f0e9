"""Two profiles side by side, by what operators are for: where one is faster, and where it loses that again."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from hone.profiles.families import family
from hone.profiles.record import OperatorTime, Profile

LEAST = 0.01
"""Share of the slower one's time below which operators are put together as 'other'."""


@dataclass(frozen=True)
class Side:
    """One family of operators in both.

    Attributes:
        name: of the family.
        first_ms, second_ms: of a batch.
        first, second: the operators' types, what takes most first.
    """

    name: str
    first_ms: float
    second_ms: float
    first: tuple[str, ...]
    second: tuple[str, ...]

    @property
    def change_ms(self) -> float:
        return self.second_ms - self.first_ms


def side_by_side(first: Profile, second: Profile) -> list[Side]:
    """Return the families of two profiles, what differs most first; small ones together, and what none took, last.

    The times of a side add up to its batch without the profiler.
    """
    ours, theirs = _families(first), _families(second)
    least = LEAST * max(first.plain_ms, second.plain_ms)
    sides, rest = [], [0.0, 0.0]
    for name in dict.fromkeys([*ours, *theirs]):
        side = Side(name, _ms(ours[name]), _ms(theirs[name]), _kinds(ours[name]), _kinds(theirs[name]))
        if max(side.first_ms, side.second_ms) < least:
            rest = [rest[0] + side.first_ms, rest[1] + side.second_ms]
        else:
            sides.append(side)
    sides.sort(key=lambda side: -abs(side.change_ms))
    last = (
        Side("other", rest[0], rest[1], (), ()),
        Side("outside of operators", first.outside_ms, second.outside_ms, (), ()),
    )
    return [*sides, *(side for side in last if max(side.first_ms, side.second_ms) >= least / 10)]


def summary(first: Profile, second: Profile) -> str:
    """Return in one line what the second wins against the first, and what it loses."""
    ratio = first.plain_ms / second.plain_ms if second.plain_ms else 1.0
    sides = side_by_side(first, second)
    won = [side for side in sides if side.change_ms < 0]
    lost = [side for side in sides if side.change_ms > 0]
    words = "as fast as" if 0.97 < ratio < 1.03 else f"{ratio:.2f} times as fast as"
    parts = [f"{second.model} is {words} {first.model}"]
    if won:
        parts.append(f"it saves {-sum(side.change_ms for side in won):.3f} ms ({_names(won)})")
    if lost:
        parts.append(f"{'and ' if won else 'it '}pays {sum(side.change_ms for side in lost):.3f} ms ({_names(lost)})")
    return ", ".join(parts)


def _names(sides: list[Side]) -> str:
    return ", ".join(side.name for side in sides[:3])


def _families(profile: Profile) -> dict[str, list[OperatorTime]]:
    found: dict[str, list[OperatorTime]] = defaultdict(list)
    for time in profile.operators:
        found[family(time.operator)].append(time)
    return found


def _ms(times: list[OperatorTime]) -> float:
    return sum(time.ms for time in times)


def _kinds(times: list[OperatorTime]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(time.operator for time in times))
