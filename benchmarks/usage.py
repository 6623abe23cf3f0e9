"""What a service's processes on this host take while something loads it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psutil

from hone.errors import HoneError

from .sampling import sampled

Sample = tuple[float, float]
"""Processor seconds so far, and resident memory in MiB, of a service's processes."""


def listeners(url: str) -> list[psutil.Process]:
    """Return the process that listens on a local URL's port with its whole family, or nothing."""
    address = urlsplit(url)
    if address.hostname not in ("127.0.0.1", "localhost", "::1"):
        return []
    try:
        found = {c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == address.port and c.pid
                 and c.status == psutil.CONN_LISTEN}  # fmt: skip
        roots = [psutil.Process(pid) for pid in found]
    except psutil.Error:
        return []  # macOS shows other processes' sockets to root only
    family = {process.pid: process for root in roots for process in (root, *root.children(recursive=True))}
    return list(family.values())


@contextmanager
def watched(processes: list[psutil.Process]) -> Iterator[dict[str, float]]:
    """Fill in, at the end, the processor time that processes took, in seconds and as cores, and their most memory."""
    result: dict[str, float] = {}
    if not processes:
        yield result
        return
    started, before = time.monotonic(), _usage(processes)
    with sampled(lambda: _usage(processes)[1], 0.5) as memory:
        yield result
    after = _usage(processes)
    result["cpu_s"] = after[0] - before[0]
    result["cpu_cores"] = round(result["cpu_s"] / (time.monotonic() - started), 3)
    result["rss_mb"] = round(max([*memory, after[1]]), 1)


def worked_s(processes: list[psutil.Process]) -> float:
    """Return the processor seconds of processes so far, to the nanosecond where the system tells (Linux).

    Raises:
        HoneError: one is gone.
    """
    try:
        if sys.platform == "linux":
            # What clock_getcpuclockid(3) returns: psutil's times come in steps of 10 ms.
            return sum(time.clock_gettime((~process.pid << 3) | 2) for process in processes)
        return sum(sum(process.cpu_times()[:2]) for process in processes)
    except (OSError, psutil.Error):
        raise HoneError("a process of the service ended while it was measured") from None


def _usage(processes: list[psutil.Process]) -> Sample:
    seconds, memory = 0.0, 0.0
    for process in processes:
        try:
            times = process.cpu_times()
            seconds += times.user + times.system
            memory += process.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            continue
    return seconds, memory
