"""One process apart, from outside: started, asked with a deadline, watched, ended."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Literal

import numpy as np
import psutil

import hone
from hone.apart import wire
from hone.errors import ModelError, shorten
from hone.processes import signal_group, why_failed

logger = logging.getLogger("hone.python")

LOOK_S = 0.1
"""Between two looks at the time and the memory, while an answer is waited for."""
LINES_A_MINUTE = 120
"""Of what a model prints, that go to the log."""
LONGEST_LINE = 1000
THREADS = tuple(f"{library}_NUM_THREADS" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR"))
"""Variables by which the libraries that compute arrays are told their threads, when they are imported."""
CODE = "import sys; sys.path[:0] = [{root!r}]; from hone.apart.worker import main; del sys.path[0]; main()"


class RowsError(ModelError):
    """A model refused the rows of a call, with a ValueError: they are the caller's mistake."""


class EndedError(ModelError):
    """A process apart has ended, by itself or because it had to."""


@dataclass(frozen=True)
class Program:
    """What a process apart runs, and within which limits.

    Attributes:
        folder: with the module and its files.
        form: what `reference` is: the function itself, or one that returns it.
        reference: `module:function`.
        name: of the model, for the log.
        threads: of the libraries that compute arrays; None: their own choice.
        timeout_s: of one call.
        start_s: of the start.
        memory_mb: that it may hold, MiB; None: no limit.
        answer_mb: of one answer.
    """

    folder: Path
    form: Literal["predict", "load"]
    reference: str
    name: str = ""
    threads: int | None = None
    timeout_s: float = 30.0
    start_s: float = 120.0
    memory_mb: int | None = None
    answer_mb: int = 256


class Process:
    """A running process apart; one call at a time.

    Args:
        program: what it runs.

    Raises:
        ModelError: it doesn't start; the message is one line.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self._said: deque[str] = deque(maxlen=20)
        self._why = ""
        self._socket, theirs = socket.socketpair()
        watched, self._life = os.pipe()
        try:
            self._popen = _started(program, theirs, watched)
        except OSError as error:
            self._socket.close()
            os.close(self._life)
            raise ModelError(f"its process can't be started: {error.strerror}") from None
        finally:
            theirs.close()
            os.close(watched)
        self.pid = self._popen.pid
        self._socket.settimeout(LOOK_S)
        self._listener = threading.Thread(target=self._listen, daemon=True, name="python-log")
        self._listener.start()
        self._end = self._looked = 0.0
        try:
            self._await_start()
        except BaseException:
            self.close()
            raise

    def _await_start(self) -> None:
        self._end = monotonic() + self.program.start_s
        try:
            message, _ = wire.receive(self, 0)
        except EOFError:
            raise EndedError(f"{self.program.reference}: its process {self.death()} at its start") from None
        except TimeoutError:
            late = f"took more than {self.program.start_s:g} s to load (start_s)"
            raise EndedError(f"{self.program.reference} {late}") from None
        except wire.WireError as error:
            raise EndedError(f"{self.program.reference}: {error}") from None
        if message.get("kind") != "ready":
            raise ModelError(shorten(f"{self.program.reference}: {message.get('problem')}", 500))

    def call(self, inputs: dict[str, np.ndarray], outputs: list[str]) -> dict[str, np.ndarray]:
        """Return the answer to one batch.

        Args:
            inputs: tensors by name.
            outputs: names of those that are wanted; none: all that there are.

        Raises:
            RowsError: the model refuses the rows.
            ModelError: it failed on them, and can be asked again.
            EndedError: its process has ended.
        """
        program, self._end = self.program, monotonic() + self.program.timeout_s
        try:
            wire.send(self, {"outputs": outputs}, inputs)
            message, answer = wire.receive(self, int(program.answer_mb * 1e6))
        except TimeoutError:
            raise self._stopped(f"gave no answer in {program.timeout_s:g} s (timeout_s)") from None
        except (EOFError, OSError):
            raise EndedError(f"{program.reference}: its process {self.death()}") from None
        except wire.WireError as error:
            raise self._stopped(str(error)) from None
        problem = shorten(str(message.get("problem", "")), 500)
        if message.get("kind") == "rows":
            raise RowsError(f"{program.reference}: {problem}")
        if message.get("kind") != "done":
            raise ModelError(f"{program.reference} {problem}")
        self._look_at_memory()
        return answer

    def send(self, data: memoryview) -> None:
        while data:
            self._check_time()
            try:
                data = data[self._socket.send(data) :]
            except TimeoutError:
                self._look()

    def receive(self, into: memoryview) -> None:
        while into:
            self._check_time()
            try:
                got = self._socket.recv_into(into)
            except TimeoutError:
                self._look()
                continue
            except ConnectionResetError:
                raise EOFError from None
            if not got:
                raise EOFError
            into = into[got:]

    def _check_time(self) -> None:
        if monotonic() > self._end:
            raise TimeoutError

    def _look(self) -> None:
        """Raise EndedError for a process that holds too much, and end it."""
        if self._holds_too_much():
            raise self._stopped(self._too_much)

    def _look_at_memory(self) -> None:
        """End the process after an answer where it holds too much by then; not looked at after each of many."""
        if self.program.memory_mb is None or monotonic() - self._looked < 1:
            return
        self._looked = monotonic()
        if self._holds_too_much():
            self._stopped(self._too_much)

    def _holds_too_much(self) -> bool:
        most = self.program.memory_mb
        return most is not None and self.memory_mb() > most

    @property
    def _too_much(self) -> str:
        return f"held more than {self.program.memory_mb} MiB (memory_mb)"

    def memory_mb(self) -> float:
        """Return the resident memory of the process, MiB; 0 when it is gone."""
        try:
            return float(psutil.Process(self.pid).memory_info().rss) / 2**20
        except psutil.Error:
            return 0.0

    def _stopped(self, why: str) -> EndedError:
        """End the process; return the error that says why."""
        self._why = f"was ended: it {why}"
        self.close()
        return EndedError(f"{self.program.reference} {why}; its process was ended")

    def death(self) -> str:
        """Wait a moment for the process to end; return how it did, in words that follow 'its process'."""
        if self._why:
            return self._why
        try:
            code = self._popen.wait(5)
        except subprocess.TimeoutExpired:
            self.close()
            return "closed its connection"
        self._listener.join(1)
        last = f"; it said: {shorten(why_failed(chr(10).join(self._said)), 200)}" if self._said else ""
        if code >= 0:
            return f"ended with status {code}{last}"
        with contextlib.suppress(ValueError):
            name = signal.Signals(-code).name
            hint = " (out of memory, maybe)" if name == "SIGKILL" else ""
            return f"was killed by {name}{hint}{last}"
        return f"was killed by signal {-code}{last}"

    def wait(self) -> None:
        """Return when the process has ended."""
        self._popen.wait()

    @property
    def closed(self) -> bool:
        return self._life < 0

    def close(self) -> None:
        """End the process, and what it started, at once."""
        life, self._life = self._life, -1
        if life < 0:
            return
        signal_group(self.pid, signal.SIGKILL)
        self._popen.wait()
        self._socket.close()
        os.close(life)

    def _listen(self) -> None:
        """Hand to the log what the process prints, so many lines a minute."""
        assert self._popen.stdout is not None
        minute, count = 0, 0
        with self._popen.stdout as stream:
            while line := stream.readline(LONGEST_LINE):
                text = line.decode(errors="replace").rstrip()
                text = "".join(letter if letter.isprintable() else "?" for letter in text)
                if not text:
                    continue
                self._said.append(text.strip())
                now = int(monotonic() // 60)
                minute, count = (minute, count + 1) if now == minute else (now, 1)
                if count <= LINES_A_MINUTE:
                    logger.info("%s: %s", self.program.name, text)
                elif count == LINES_A_MINUTE + 1:
                    logger.warning("%s: it prints much; the rest of this minute is left out", self.program.name)


def _started(program: Program, connection: socket.socket, pipe: int) -> subprocess.Popen[bytes]:
    asked = {
        "socket": connection.fileno(),
        "pipe": pipe,
        "folder": str(program.folder),
        "form": program.form,
        "reference": program.reference,
        "most": int(program.answer_mb * 1e6),
    }
    code = CODE.format(root=str(Path(hone.__file__).parent.parent))
    return subprocess.Popen(
        [sys.executable, "-P", "-B", "-X", "faulthandler", "-c", code, json.dumps(asked)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=(connection.fileno(), pipe),
        cwd=tempfile.gettempdir(),
        env=_environment(program.threads),
        start_new_session=True,  # Ctrl-C is Hone's; it ends its processes itself
    )


def _environment(threads: int | None) -> dict[str, str]:
    """Return the variables of a process apart: none of Hone's own, which hold keys and addresses."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("HONE_")}
    variables |= {"PYTHONUNBUFFERED": "1", "PYTHONHASHSEED": "0"}
    return variables | (dict.fromkeys(THREADS, str(threads)) if threads else {})
