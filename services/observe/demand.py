"""What is asked of a model, in seconds of rows: what an autoscaler goes by."""

from __future__ import annotations


class Demand:
    """Adds up the seconds that rows spend here; their rate is the mean number of rows in flight (Little's law).

    A service that refuses what it has no room for never holds more rows than it has room for, however much is asked of
    it. So a refused row counts as many seconds as an answered one took meanwhile: at three times the load that a pod
    holds, the rate is three times that of the rows in it, which is what more pods are made by.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._rows = self._requests = 0
        self._refused_rows = self._refused_unread = 0
        self._mean_s = 0.0
        self._mean_rows = 1.0

    def answered(self, rows: int, seconds: float) -> None:
        """Count a request that was read and not refused: every one of them comes by here."""
        self._seconds += rows * seconds
        self._rows += rows
        self._requests += 1

    def refused(self, rows: int) -> None:
        """Count a request that was refused for want of room; one of unknown rows has as many as others have."""
        if rows:
            self._refused_rows += rows
        else:
            self._refused_unread += 1

    def take(self) -> float:
        """Return the row-seconds since the last time.

        While nothing was answered, what was refused counts by the last answers that there were.
        """
        seconds = self._seconds
        if self._rows:
            self._mean_s = seconds / self._rows
            self._mean_rows = self._rows / self._requests
        seconds += (self._refused_rows + self._refused_unread * self._mean_rows) * self._mean_s
        self._seconds = 0.0
        self._rows = self._requests = self._refused_rows = self._refused_unread = 0
        return seconds
