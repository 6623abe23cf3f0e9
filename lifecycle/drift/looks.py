"""Which hours a look takes together: the last that have enough rows to see a change, and those before them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hone.sketches.window import Window

SHORT_ROWS, LONG_ROWS = 400, 2000
"""Rows that the two looks take, if a week has so many: the first is quick, the second sees smaller changes."""
MOST_HOURS = 168
ROWS = (SHORT_ROWS, LONG_ROWS)
LOOKS = len(ROWS)
WEEKS = 4
"""Earlier weeks that are taken as history."""


@dataclass(frozen=True)
class Span:
    """Hours that are looked at together, `first` to `last`."""

    first: int
    last: int

    @property
    def hours(self) -> int:
        return self.last - self.first + 1


def spans(rows: Mapping[int, int], last: int) -> list[Span]:
    """Return the hours that are looked at, ending with `last`: as few as have enough rows.

    Args:
        rows: of each hour.
        last: the hour that it is now.
    """
    found: list[Span] = []
    for wanted in ROWS:
        total, hour = 0, last
        while hour > last - MOST_HOURS:
            total += rows.get(hour, 0)
            if total >= wanted:
                break
            hour -= 1
        first = min((one for one in rows if max(hour, last - MOST_HOURS + 1) <= one <= last), default=last)
        span = Span(first, last)
        if span not in found:
            found.append(span)
    return found


def merged(windows: Sequence[Window], span: Span) -> Window | None:
    """Return the rows of a span together; None when there is none."""
    return together([window for window in windows if span.first <= window.about.hour <= span.last])


def history(windows: Sequence[Window], span: Span) -> Window | None:
    """Return the rows of the same hours in earlier weeks; None when there is none."""
    if span.hours > MOST_HOURS:
        return None
    earlier = [Span(span.first - 168 * week, span.last - 168 * week) for week in range(1, WEEKS + 1)]
    return together(
        [window for window in windows if any(one.first <= window.about.hour <= one.last for one in earlier)]
    )


def together(windows: Sequence[Window]) -> Window | None:
    if not windows:
        return None
    total = Window.empty(windows[-1].about, windows[-1].columns)
    for window in windows:
        if window.columns == total.columns:
            total.merge(window)
    return total
