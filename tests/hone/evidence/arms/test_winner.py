"""Who wins, of one variant or several."""

from __future__ import annotations

import math

from hone.evidence.arms.means import Difference
from hone.evidence.arms.winner import decide, is_breach


def apart(low: float, high: float) -> Difference:
    return Difference(1.0, 1.0, (low + high) / 2, low, high, 0.1, 1000)


UNKNOWN = Difference(1.0, 1.0, 0.0, -math.inf, math.inf, 0.1, 10)


def test_the_variant_with_the_highest_bound_wins_and_others_are_named() -> None:
    found = decide({"b": apart(0.1, 0.9), "c": apart(0.2, 0.4), "d": apart(-0.1, 2)}, "higher")
    assert (found.outcome, found.arm, found.others) == ("winner", "c", ("b",))
    assert decide({"b": apart(-0.4, -0.2), "c": apart(-0.1, 0.1)}, "lower").arm == "b"


def test_the_control_wins_only_when_all_are_worse() -> None:
    assert decide({"b": apart(-0.4, -0.2), "c": apart(-0.3, -0.1)}, "higher").outcome == "control"
    assert decide({"b": apart(-0.4, -0.2), "c": UNKNOWN}, "higher").outcome == "undecided"


def test_what_can_not_matter_is_no_reason_to_change() -> None:
    small = {"b": apart(-0.2, 0.04), "c": apart(-0.1, 0.03)}
    assert decide(small, "higher", 0.05).outcome == "equal"
    assert decide(small, "higher").outcome == "undecided"
    assert decide({"b": UNKNOWN}, "higher", 0.05).outcome == "undecided"


def test_a_guardrail_breaks_when_worse_is_proven_and_allowed_is_not() -> None:
    assert is_breach(apart(-0.4, -0.2), "higher", 0.1)
    assert not is_breach(apart(-0.09, -0.02), "higher", 0.1), "worse, but by no more than is allowed"
    assert not is_breach(apart(-0.4, 0.1), "higher", 0.1)
    assert is_breach(apart(0.2, 0.4), "lower", 0.1)
    assert not is_breach(UNKNOWN, "lower", 0.1)
