"""Other programs that Hone runs, and what they say when they fail; how a program of Hone ends."""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hone.errors import HoneError, shorten

UNWINDING_S = 3.0
"""So long a task may take to remove what it has half written."""

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


def signal_group(group: int, number: signal.Signals) -> None:
    """Signal what there is of a process group, which may be nothing: its first process may have ended before others."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class Terminated(KeyboardInterrupt):
    """SIGTERM, such as a service manager's or a cluster's: what is under way is unwound as at Ctrl-C."""


def unwind_at_sigterm() -> None:
    """Let SIGTERM raise `Terminated` in the main thread; by default it leaves workers and scratch folders behind."""

    def told(*_: object) -> None:
        raise Terminated

    signal.signal(signal.SIGTERM, told)


def end_with_parent() -> None:
    """Let SIGTERM reach this worker of a pool once the process that started it is gone, however that ended.

    A pool's worker takes what SIGTERM raises for its task's result, and waits for the next one: it is told again.
    """

    def watch(parent: multiprocessing.process.BaseProcess) -> None:
        parent.join()
        while True:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(UNWINDING_S)

    if parent := multiprocessing.parent_process():
        threading.Thread(target=watch, args=(parent,), daemon=True).start()


def end_quickly() -> None:
    """Let this process end without a last search for garbage: the kernel has its memory back at once.

    With BentoML loaded the search takes a fifth of a second, with torch half of one. What is registered with `atexit`
    runs as ever.
    """
    atexit.register(gc.freeze)
