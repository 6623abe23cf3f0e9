from __future__ import annotations

from hone.plan import Measured
from hone.services.models.measuring import best_rows


def measured(rows: int, seconds: float) -> Measured:
    return Measured(threads=1, in_flight=1, rows=rows, seconds=seconds)


def test_batch_is_the_smallest_near_the_peak_unless_more_is_free() -> None:
    slow = [measured(rows, 0.01 * max(rows, 4) / 4) for rows in (1, 2, 4, 8, 16)]
    assert best_rows(slow).rows == 4
    quick = [measured(rows, 0.0001 * rows) for rows in (1, 2, 4, 8, 16, 32)]
    assert best_rows(quick).rows == 16  # 32 would hold the event loop for too long
