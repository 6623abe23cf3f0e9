"""Worker processes that end in their own ways."""

from __future__ import annotations

import os
import signal

import pytest

from hone.converters.run.workers import Failure, Workers


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGSEGV, "by SIGSEGV: a native library crashed"),
        (signal.SIGKILL, "most often the host ran out of memory"),
    ],
)
def test_what_ended_a_worker_is_said(number: signal.Signals, words: str) -> None:
    workers = Workers(2, lambda _: None)
    try:
        future = workers.call(os.kill, 0, 0)
        workers.wait([future])
        future = workers.call(end_by, int(number))
        workers.wait([future])
        failure = workers.result(future)
    finally:
        workers.close()
    assert isinstance(failure, Failure)
    assert "the worker process was killed" in failure.message
    assert words in failure.message


def end_by(number: int) -> None:
    os.kill(os.getpid(), number)
