"""Drive a `converters.proof.probe` process: one artifact, loaded and measured apart from everything else."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import PassError
from hone.signature import Tensors


class ProbeProcess:
    """A process for one artifact.

    Args:
        name: of the artifact.
        artifact: its folder.
        evaluation: what `hone.data.save_dataset` wrote.
        log: what its process says.
        python: that runs it; None: this process's own.
    """

    def __init__(self, name: str, artifact: Path, evaluation: Path, log: Path, python: Path | None = None) -> None:
        self._name = name
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [python or sys.executable, "-m", "hone.converters.proof.probe"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        self._send({"command": "open", "artifact": str(artifact), "evaluation": str(evaluation)})

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the last command.

        Raises:
            PassError: the command failed, or the process died.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PassError(f"its process {self._death()}")
        message = json.loads(line)
        if "error" in message:
            raise PassError(message["error"]["message"])
        return dict(message["ok"])

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        self._send({"command": command, **arguments})
        return self.answer()

    def answers(self, out: Path, batch: int) -> tuple[Tensors, dict[str, Any]]:
        """Let it answer all rows, in batches of so many; return the answers by output, and what it said beside them.

        Args:
            out: a file for the answers, written anew.
            batch: rows of a batch.

        Raises:
            PassError: as `answer`.
        """
        said = self.ask("evaluate", out=str(out), batch=batch)
        with np.load(out, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}, said

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PassError(f"its process {self._death()}") from None

    def _death(self) -> str:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"was killed by {name}" + (": the host ran out of memory" if name == "SIGKILL" else "")
        tail = self._log.read_text(errors="replace").strip().splitlines()
        return f"ended with status {code}: {tail[-1] if tail else 'no message'}"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
