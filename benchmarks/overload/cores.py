"""The cores of the service, and those of what loads it: neither is to measure the other."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hone.hardware import cores

GENERATOR = 4
"""One of so many cores is the generator's, and at least one."""


def shared_out() -> tuple[list[int], list[int]]:
    """Return the cores of the service and those of the generator.

    They are the same where there is only one, or where processes can't be kept to cores (macOS).
    """
    there = sorted(os.sched_getaffinity(0))[: cores()] if hasattr(os, "sched_getaffinity") else [*range(cores())]
    if len(there) < 2 or not hasattr(os, "sched_setaffinity"):
        return there, there
    count = max(1, len(there) // GENERATOR)
    return there[:-count], there[-count:]


@contextmanager
def kept_to(few: Sequence[int]) -> Iterator[None]:
    """Keep this thread, and the processes that it starts meanwhile, to some cores.

    A service that is started so learns from it how many cores it has, and runs no more batches side by side.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, few)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
