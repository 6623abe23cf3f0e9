"""Senders that share one run: started, told, followed and ended from here."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

import numpy as np

from hone.errors import HoneError
from hone.processes import why_failed

from .plan import GRACE_S, RECORDS, Reader

HEAD_START_S = 0.02
"""Between the word and the moment that senders begin at: they must have heard it."""


class Child:
    """One sender's process. It starts before there is a plan: its imports take longer than a short run may wait."""

    def __init__(self) -> None:
        self._errors: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - it lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__.rpartition(".")[0] + ".sender"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
        )  # fmt: skip

    def tell(self, words: str) -> None:
        """Send it a line; one that has ended hears nothing, which `failure` tells."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(f"{words}\n")
            self._process.stdin.flush()

    def wait(self, word: str) -> None:
        """Wait until it says `up` or `ready`; raises HoneError when it ends instead."""
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) and line.strip() != word:
            pass
        if not line:
            self._process.wait()
            raise HoneError(self.failure() or "the sender ended before it began")

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def failure(self) -> str:
        """Return why it ended before its time; empty when it runs or ended well."""
        if self.running or self._process.returncode == 0:
            return ""
        self._errors.seek(0)
        text = self._errors.read()
        return why_failed(text).removeprefix("error: ") if text else f"a sender ended ({self._process.returncode})"

    def end(self, patience_s: float) -> None:
        """Let it come to its end; kill it when it takes too long."""
        with contextlib.suppress(OSError, ValueError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()


class Fleet:
    """The senders of one run, a plan's folder each.

    Args:
        folders: of the plans.
        children: processes that were started before; more are started when they are too few.

    Raises:
        HoneError: a sender can't begin.
    """

    def __init__(self, folders: list[Path], children: list[Child] | None = None) -> None:
        self._readers = [Reader(folder) for folder in folders]
        spare = children or []
        self._children = [spare.pop() if spare else Child() for _ in folders]
        try:
            for child, folder in zip(self._children, folders, strict=True):
                child.tell(f"plan {folder}")
            for child in self._children:
                child.wait("ready")
        except BaseException:
            self.end()
            raise
        self.zero = time.monotonic() + HEAD_START_S
        for child in self._children:
            child.tell(f"start {self.zero!r}")

    def set_users(self, users: int) -> None:
        """Say how many callers a closed loop has; they are spread over the senders."""
        count = len(self._children)
        for number, child in enumerate(self._children):
            child.tell(f"users {users // count + (number < users % count)}")

    @property
    def running(self) -> bool:
        return any(child.running for child in self._children)

    def failure(self) -> str:
        """Return why a sender ended before its time; empty when none did."""
        return next(filter(None, (child.failure() for child in self._children)), "")

    def more(self) -> np.ndarray:
        """Return the records that came since the last call: an array of RECORDS."""
        return np.concatenate([np.zeros(0, RECORDS), *(reader.more() for reader in self._readers)])

    def errors(self) -> list[list[str]]:
        """Return the words of the errors, by sender."""
        return [reader.errors() for reader in self._readers]

    def stop(self) -> None:
        """Tell the senders to send no more."""
        for child in self._children:
            child.tell("stop")

    def end(self) -> None:
        """Stop, and wait for the last answers a moment; afterwards no process is left."""
        self.stop()
        for child in self._children:
            child.end(GRACE_S + 3.0)
