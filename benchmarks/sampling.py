"""Samples taken in a thread while something else runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def sampled(take: Callable[[], float], every_s: float = 0.0) -> Iterator[list[float]]:
    """Yield a list that grows by a sample every so many seconds until the block ends; the first one after that time.

    Args:
        take: a sample; it runs in a thread of its own.
        every_s: seconds between the end of one sample and the next; 0: one right after the other.
    """
    samples: list[float] = []
    done = threading.Event()

    def run() -> None:
        while not done.wait(every_s):
            samples.append(take())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()
