"""Drift as a reason to train again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from hone.store.registry import registered

from ..drift.check import Question, check

LOOK_S = 3600.0
"""Between two looks at a model: the budget of false alarms counts a look an hour."""


class DriftLooks:
    """Looks at what services have sketched, once an hour a model.

    Args:
        folder: of the sketches.
        clock: seconds that never go back.
    """

    def __init__(self, folder: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = folder
        self._clock = clock
        self._looked: dict[str, float] = {}

    def __call__(self, name: str) -> str:
        """Return in words what has drifted of the traffic of a model's champion; empty when nothing has.

        Raises:
            HoneError: nobody can tell: there are no sketches, or its proof left nothing to compare with.
        """
        now = self._clock()
        if now - self._looked.get(name, -LOOK_S) < LOOK_S:
            return ""
        self._looked[name] = now
        served = f"{name}@champion" if "champion" in registered(name).aliases else name
        found = check(served, self._folder, Question())
        return found.headline() if found.verdict == "missed" else ""
