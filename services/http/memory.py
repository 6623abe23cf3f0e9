"""Giving memory back to the system: what was freed stays with the process otherwise, and counts against its pod."""

from __future__ import annotations

import gc
import sys


def trim_heap() -> None:
    """Return free pages of the heap to the system (glibc's malloc_trim)."""
    if sys.platform == "linux":
        import ctypes

        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def release_memory() -> None:
    """Collect what an unloaded model leaves behind, and return it."""
    gc.collect()
    trim_heap()
