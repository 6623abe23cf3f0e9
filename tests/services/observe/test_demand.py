from __future__ import annotations

import pytest

from hone.services.http.failures import DeadlineError, OverloadedError, StoppingError
from hone.services.observe.demand import Demand


def test_refused_rows_count_as_long_as_answered_ones_took() -> None:
    demand = Demand()
    demand.answered(4, 0.5)
    demand.answered(1, 0.5)
    assert demand.take() == pytest.approx(2.5)
    demand.answered(4, 0.25)
    demand.refused(8)
    assert demand.take() == pytest.approx(3.0)
    assert demand.take() == 0.0


def test_what_was_refused_unread_has_as_many_rows_as_others() -> None:
    demand = Demand()
    demand.answered(2, 0.5)
    demand.answered(4, 0.5)
    demand.refused(0)
    assert demand.take() == pytest.approx(3.0 + 3 * 0.5)


def test_refusals_while_nothing_is_answered_count_by_the_last_answers() -> None:
    demand = Demand()
    demand.refused(4)
    assert demand.take() == 0.0  # nobody knows yet how long a row takes
    demand.answered(2, 0.5)
    demand.take()
    demand.refused(4)
    assert demand.take() == pytest.approx(2.0)


def test_only_what_another_replica_would_have_answered_is_demand() -> None:
    assert OverloadedError("full").is_demand
    assert DeadlineError("others are ahead").is_demand
    assert not DeadlineError("too short", hopeless=True).is_demand
    assert not StoppingError().is_demand
