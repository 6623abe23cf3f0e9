"""Other programs that Hone runs, and what they say when they fail; how a program of Hone ends."""

from __future__ import annotations

import atexit
import ctypes
import gc
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from hone.errors import HoneError, shorten

TELLING = re.compile(r"error|exception|denied|no such|not found|failed", re.IGNORECASE)


def output_of(
    command: Sequence[str | Path], name: str, *, folder: Path | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """Run a program to its end; return what it prints.

    Args:
        command: the program and its arguments, without a shell.
        name: of the program, in messages.
        folder: to run it in.
        variables: all of its environment; None: this process's.

    Raises:
        HoneError: it ended with another status than 0; the message is the line of its output that tells why.
        OSError: it can't be started.
    """
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, cwd=folder, env=variables)
    if done.returncode:
        raise HoneError(f"{name} failed: {why_failed(done.stderr + done.stdout)}")
    return done.stdout


def why_failed(output: str) -> str:
    """Return the line that tells why a program failed: the last that names an error, else its last."""
    lines = [line for line in output.splitlines() if line.strip()]
    telling = [line for line in lines if TELLING.search(line)]
    return shorten((telling or lines or ["it printed nothing"])[-1].strip(), 400)


def end_quickly() -> None:
    """Let this process end without a last search for garbage: the kernel has its memory back at once.

    With BentoML loaded the search takes a fifth of a second, with torch half of one. What is registered with `atexit`
    runs as ever.
    """
    atexit.register(gc.freeze)


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
