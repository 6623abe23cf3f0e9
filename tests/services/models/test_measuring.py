from __future__ import annotations

from hone.plan import Measured
from hone.services.models.measuring import best_rows, most_rows_served, side_by_side


def measured(rows: int, seconds: float, threads: int = 1, in_flight: int = 1) -> Measured:
    return Measured(threads=threads, in_flight=in_flight, rows=rows, seconds=seconds)


def test_batch_is_the_smallest_near_the_peak_unless_more_is_free() -> None:
    slow = [measured(rows, 0.01 * max(rows, 4) / 4) for rows in (1, 2, 4, 8, 16)]
    assert best_rows(slow).rows == 4
    quick = [measured(rows, 0.0001 * rows) for rows in (1, 2, 4, 8, 16, 32)]
    assert best_rows(quick).rows == 8  # 16 would hold the event loop for too long


def test_a_batch_leaves_callers_time_for_the_one_before_it() -> None:
    slow = [measured(rows, 0.0006 + 0.0006 * rows * 0.95 ** (rows > 8)) for rows in (4, 8, 16, 32, 64)]
    assert best_rows(slow).rows == 32
    assert best_rows(slow, 0.05 / 3).rows == 16
    assert best_rows(slow, 0.001).rows == 4  # nothing is short enough: the shortest


def test_batches_side_by_side_fit_the_cores_of_the_worker() -> None:
    assert [side_by_side(cores, 1, 0) for cores in (1, 2, 8)] == [1, 2, 8]
    assert [side_by_side(cores, 4, 0) for cores in (1, 7, 8)] == [1, 1, 2]
    assert side_by_side(1, 1, 3) == 3


def test_more_cores_are_taken_for_a_quarter_more_rows() -> None:
    best = measured(8, 0.010)
    side = measured(8, 0.017, in_flight=2)
    assert most_rows_served(best, None, None, False) is best
    assert most_rows_served(best, measured(16, 0.0165, threads=2), None, False) is best
    assert most_rows_served(best, None, side, False) is best
    assert most_rows_served(best, None, measured(8, 0.0125, in_flight=2), False) is not best
    wide = measured(16, 0.012, threads=2)
    near = measured(8, 0.0115, in_flight=2)
    assert most_rows_served(best, wide, near, False) is wide  # 4 % more rows/s, but each answer later
    assert most_rows_served(best, wide, near, True) is near


def test_batches_side_by_side_that_take_too_long_are_no_choice() -> None:
    best, side = measured(32, 0.020), measured(32, 0.026, in_flight=2)
    assert most_rows_served(best, None, side, False) is side
    assert most_rows_served(best, None, side, False, 0.025) is best
