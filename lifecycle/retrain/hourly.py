"""Looks at the champion of a model, once an hour: budgets of false alarms count a look an hour."""

from __future__ import annotations

import time
from collections.abc import Callable

from hone.store.registry import registered

LOOK_S = 3600.0


class HourlyLooks:
    """Looks at models.

    Args:
        look: at a model as the store knows it; says in words why it is to be trained again, empty when all is well.
        clock: seconds that never go back.
    """

    def __init__(self, look: Callable[[str], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._look = look
        self._clock = clock
        self._looked: dict[str, float] = {}

    def __call__(self, name: str) -> str:
        """Return what is found of a model's champion; empty when nothing is, or when the last look is no hour ago.

        Raises:
            HoneError: nobody can tell.
        """
        now = self._clock()
        if now - self._looked.get(name, -LOOK_S) < LOOK_S:
            return ""
        self._looked[name] = now
        return self._look(f"{name}@champion" if "champion" in registered(name).aliases else name)
