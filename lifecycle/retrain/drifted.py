"""Drift as a reason to train again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..drift.check import Question, check
from .hourly import HourlyLooks


class DriftLooks(HourlyLooks):
    """Looks at what services have sketched.

    Args:
        folder: of the sketches.
        clock: seconds that never go back.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(self._drifted, clock)
        self._folder = folder

    def _drifted(self, model: str) -> str:
        found = check(model, self._folder, Question())
        return found.headline() if found.verdict == "missed" else ""
