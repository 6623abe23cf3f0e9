"""Runs a benchmark's command, and says in one line why it failed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from hone.processes import why_failed

from .sections import Benchmark

STOP_S = 20.0
"""For a command to end by itself after Ctrl-C, which a terminal sends to it, too."""


def run(benchmark: Benchmark, folder: Path, minutes: float | None, tell: Callable[[str], None]) -> str:
    """Run a benchmark to its end; return why it wrote no record, in one line, or nothing.

    A command that ends with another status than 0 may have written one: a slower service is a result.

    Args:
        folder: of the records.
        minutes: about how long it may take; None: as long as it takes by itself.
        tell: told of each line that it prints meanwhile.
    """
    file = benchmark.file(folder)
    before = _state(file)
    command = [*program(benchmark.program), *benchmark.arguments(folder, minutes)]
    try:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    assert process.stderr is not None
    said: list[str] = []
    try:
        for line in process.stderr:
            tell(line.rstrip())
            said = [*said[-50:], line]
        status = process.wait()
    except KeyboardInterrupt:
        _end(process)
        raise
    if status and _state(file) == before:
        return why_failed("".join(said)).removeprefix("Error: ").removeprefix("error: ")
    return ""


def program(name: str) -> list[str]:
    """Return how a program is called: this environment's `hone`, or a module beside this one."""
    if name == "hone":
        return [str(Path(sys.executable).with_name("hone"))]
    room = __name__.rsplit(".", 2)[0]  # hone.benchmarks, or benchmarks in a checkout
    return [sys.executable, "-m", f"{room}.{name.removeprefix('benchmarks.')}"]


def _state(file: Path) -> tuple[int, int] | None:
    """Return what changes when a file is written anew; None where it isn't there."""
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns


def _end(process: subprocess.Popen[str]) -> None:
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait()
