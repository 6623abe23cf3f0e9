"""Threads that compute let the event loop go first.

Where both share a core, a thread that computes keeps it until its slice ends, milliseconds, while requests wait to be
read, refused or answered; Linux takes it from a thread of lower priority much sooner.
Priorities count between threads of one container (cgroup) only: nobody else's share changes there.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def step_back(levels: int) -> None:
    """Lower the priority of this thread, and of all that it starts from now on; there is no way back.

    Only Linux has a priority for each thread (setpriority(2), "C library/kernel differences").

    Args:
        levels: of niceness; what goes beyond the lowest priority is the lowest.
    """
    if levels and sys.platform == "linux":
        own = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, own, os.getpriority(os.PRIO_PROCESS, own) + levels)


def pool_behind(levels: int, threads: int, name: str) -> ThreadPoolExecutor:
    """Return a pool whose threads have a lower priority."""
    return ThreadPoolExecutor(threads, name, initializer=step_back, initargs=(levels,))


async def run_behind(levels: int, function: Callable[..., T], *arguments: object) -> T:
    """Run in a thread of lower priority, that ends then; threads that it starts, such as a runtime's own, keep it."""
    pool = pool_behind(levels, 1, "behind")
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
    finally:
        pool.shutdown(wait=False)
