"""Threads beside a test: they run while a block is entered, and have ended when it is left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self


class Aside:
    """Calls functions in threads of their own; each is to end soon once `_stop` is set."""

    def __init__(self, *calls: Callable[[], object]) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=call, daemon=True) for call in calls]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
