"""Lost quality as a reason to train again: what labels show, never what is only estimated."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hone.traffic.keys import RecordKey

from ..feedback.check import Question, check
from .hourly import HourlyLooks


class QualityLooks(HourlyLooks):
    """Looks at labeled answers of services.

    Args:
        folder: of answers and feedback.
        key: that they are encrypted with.
        clock: seconds that never go back.
    """

    def __init__(self, folder: Path, key: RecordKey | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(self._degraded, clock)
        self._folder, self._key = folder, key

    def _degraded(self, model: str) -> str:
        found = check(model, self._folder, Question(), key=self._key)
        return f"quality, {found.headline()}" if found.state == "act" else ""
