"""Worker processes: a crash, a leak or a framework's threads stay out of the main process."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor
from concurrent.futures import wait as wait_futures
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.cache import run_in
from hone.errors import HoneError, one_line
from hone.processes import end_quickly, end_with_parent


@dataclass(frozen=True)
class Failure:
    """An error in a worker, in a form that travels between processes."""

    message: str
    expected: bool
    detail: str = ""
    exit_code: int = 1


EXIT_S = 2.0
"""So long the processes of a broken pool may take to be gone."""


class Workers:
    """A pool of processes; a worker that dies fails its own task only."""

    def __init__(self, jobs: int, on_message: Callable[[str], None]) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._jobs = jobs
        self._messages = self._context.Queue()
        self._on_message = on_message
        self._pool = self._new_pool()
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._jobs, self._context, initializer=_initialize, initargs=(self._messages,))

    def _read(self) -> None:
        while not self._closed.is_set():
            try:
                self._on_message(self._messages.get(timeout=0.2))
            except queue.Empty:
                continue

    def call(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Run a module-level function in a worker."""
        try:
            return self._pool.submit(guarded, function, *arguments)
        except BrokenProcessPool:
            # A worker died under an earlier task, which has its own failure; later tasks get new processes.
            self._pool = self._new_pool()
            return self._pool.submit(guarded, function, *arguments)

    @staticmethod
    def wait(futures: Iterable[Future[Any]]) -> set[Future[Any]]:
        pending = set(futures)
        return wait_futures(pending, return_when=FIRST_COMPLETED).done if pending else set()

    @property
    def jobs(self) -> int:
        return self._jobs

    @staticmethod
    def was_killed(future: Future[Any]) -> bool:
        """True when a worker died under this task, its own or a neighbor."""
        return isinstance(future.exception(), BrokenProcessPool)

    def result(self, future: Future[Any]) -> Any:
        """Return what the function returned, or a Failure; with --debug, its traceback goes to standard error."""
        try:
            result = future.result()
            if isinstance(result, Failure) and os.environ.get("HONE_DEBUG"):
                sys.stderr.write(result.detail)
            return result
        except BrokenProcessPool:
            return Failure(f"the worker process was killed{self._killer()}", expected=True)

    def _killer(self) -> str:
        """Say what ended a worker: its fellows, which are ended for it, got SIGTERM."""
        processes = list((self._pool._processes or {}).values())
        patience = time.monotonic() + EXIT_S
        while any(process.exitcode is None for process in processes) and time.monotonic() < patience:
            time.sleep(0.02)  # the pool's own thread waits for them, too
        names = {signal.Signals(-code).name for process in processes if (code := process.exitcode or 0) < 0}
        crashed = sorted(names & {"SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"})
        if crashed:
            return (
                f" by {crashed[0]}: a native library crashed on this model; leave this variant out, or report it there"
            )
        return "; most often the host ran out of memory (see dmesg)"

    def close(self, *, kill: bool = False) -> None:
        """Stop the workers: after their current task, or at once when `kill`."""
        if kill:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._closed.set()
        self._reader.join()


@contextlib.contextmanager
def workplace(jobs: int, on_message: Callable[[str], None], prefix: str) -> Iterator[tuple[Workers, Path]]:
    """Give workers and a scratch folder for a run; both are gone afterwards, the workers at once when it fails."""
    scratch = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        with run_in(scratch):
            workers = Workers(jobs, on_message)
            try:
                yield workers, scratch
            except BaseException:
                workers.close(kill=True)
                raise
            workers.close()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


_messages: Any = None


def _initialize(messages: Any) -> None:
    """Ctrl-C is for the main process, which then ends the workers by SIGTERM; that must unwind, so that
    half-written folders are removed."""
    global _messages
    _messages = messages
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: _raise_exit())
    end_with_parent()
    end_quickly()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def _raise_exit() -> None:
    raise SystemExit(1)


def report(message: str) -> None:
    if _messages is not None:
        _messages.put(message)


def guarded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function and return its result, or its error as a Failure."""
    try:
        return function(*arguments)
    except HoneError as error:
        return Failure(str(error), expected=True, detail=traceback.format_exc(), exit_code=error.exit_code)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return Failure(f"{place}{error.strerror or one_line(error)}", expected=True, detail=traceback.format_exc())
    except Exception as error:  # noqa: BLE001 - a worker's every error must reach the main process
        message = f"{type(error).__name__}: {one_line(error)}"
        return Failure(message, expected=False, detail=traceback.format_exc())
