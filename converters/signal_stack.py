"""Where handlers of signals run in a thread: native code of other tools may leave a place that is gone."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class SignalStack(ctypes.Structure):
    """`stack_t` of Linux: where handlers of signals run in a thread (sigaltstack(2))."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


def signal_stack() -> SignalStack | None:
    """Return this thread's stack for handlers; None where there is no such thing."""
    stack = SignalStack()
    swap = getattr(ctypes.CDLL(None), "sigaltstack", None) if sys.platform == "linux" else None
    return stack if swap is not None and swap(None, ctypes.byref(stack)) == 0 else None


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Give this thread its stack for handlers back, whatever native code in the block leaves in its place.

    One that is unmapped ends the process at the next signal, Ctrl-C too, without a word: the kernel has nowhere to call
    Python's handler.
    """
    before = signal_stack()
    try:
        yield
    finally:
        if before is not None:
            ctypes.CDLL(None).sigaltstack(ctypes.byref(before), None)
