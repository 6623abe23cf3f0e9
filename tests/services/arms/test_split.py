"""Which arm a request goes to: by weight, by caller; and weights in memory that workers share."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.services.arms.split import Split, StickyArms, chance_arm, parse_split
from hone.services.arms.table import Table
from hone.services.http.failures import RequestError


def split(*weights: float, **rules: Any) -> Split:
    arms = [{"name": f"arm{place}", "version": f"v{place}", "weight": weight} for place, weight in enumerate(weights)]
    return parse_split({"model": "dense", "arms": arms, **rules})


def test_chance_deals_by_weight() -> None:
    draw = random.Random(0).random
    places = [chance_arm((70.0, 25.0, 5.0), draw) for _ in range(20_000)]
    np.testing.assert_allclose([places.count(place) / 200 for place in range(3)], [70, 25, 5], atol=1)
    assert {chance_arm((0.0, 100.0), draw) for _ in range(100)} == {1}
    assert {chance_arm((100.0, 0.0), draw) for _ in range(100)} == {0}


def test_callers_stay_while_the_weight_of_their_arm_grows() -> None:
    callers = [f"user-{number}".encode() for number in range(8000)]
    deal, elsewhere = StickyArms(b"dense", 2), StickyArms(b"dense", 2)
    held: set[bytes] = set()
    for weight in (1.0, 5.0, 25.0, 50.0, 99.0, 100.0):
        weights = (100 - weight, weight)
        mine = {caller for caller in callers if deal.choose(caller, weights)}
        assert held <= mine
        assert abs(len(mine) / len(callers) - weight / 100) < 0.02
        assert all(elsewhere.choose(caller, weights) == (caller in mine) for caller in callers[:500])
        held = mine


def test_another_salt_deals_other_callers() -> None:
    callers = [f"user-{number}".encode() for number in range(4000)]
    first, second = (StickyArms(salt, 2) for salt in (b"one", b"two"))
    both = sum(first.choose(c, (50.0, 50.0)) and second.choose(c, (50.0, 50.0)) for c in callers)
    assert abs(both / len(callers) - 0.25) < 0.03


def test_three_arms_keep_their_callers_when_one_takes_from_another() -> None:
    callers = [f"user-{number}".encode() for number in range(5000)]
    deal = StickyArms(b"dense", 3)
    before = [deal.choose(caller, (80.0, 10.0, 10.0)) for caller in callers]
    after = [deal.choose(caller, (70.0, 20.0, 10.0)) for caller in callers]
    assert all(new == 1 for old, new in zip(before, after, strict=True) if old == 1)
    assert {(old, new) for old, new in zip(before, after, strict=True) if old != new} <= {(0, 1), (2, 1), (0, 2)}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"arms": [{"name": "a", "version": "a", "weight": 90}]}, "the weights are 90 % together"),
        ({"arms": [{"name": "a", "version": "a", "weight": w} for w in (60, 40)]}, "two arms have one name"),
        ({"arms": [{"name": "a", "version": "a", "weight": w} for w in (-5, 105)]}, "arms.0.weight"),
        ({"arms": []}, "arms"),
        ({"arms": [{"name": "a b", "version": "a", "weight": 100}]}, "an arm's name has letters"),
        ({"arms": [{"name": "a", "version": "a", "weight": 100}], "sticky": "a b"}, "sticky"),
    ],
)
def test_what_is_no_split_is_named(content: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        parse_split({"model": "dense", **content})


def test_only_weights_change_under_one_id() -> None:
    before = split(90, 10, sticky="X-Key")
    again = before.weighed_anew(split(75, 25, sticky="X-Key"))
    assert again is not None
    assert (again.id, again.weights) == (before.id, (75.0, 25.0))
    assert before.weighed_anew(split(75, 25)) is None
    assert before.weighed_anew(split(75, 20, 5, sticky="X-Key")) is None


def test_weights_are_the_same_in_every_process_that_maps_them(tmp_path: Path) -> None:
    first = Table(tmp_path / "weights", (100.0, 0.0))
    second = Table(tmp_path / "weights", (50.0, 50.0))  # too late to be first
    for weights in ((95.0, 5.0), (75.0, 25.0), (0.0, 100.0)):
        second.write(weights)
        assert tuple(first.read()) == tuple(second.read()) == weights
