"""Which models all workers of a server should hold: a file that admin actions write and every worker follows.

A load or unload reaches one worker, by chance. That worker does it first; when it worked it writes the new list, and
the others, which look for a new list a few times a second, follow and note how far they are. The action is answered
when all have. A worker that crashed and came back reads the list when it starts.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil

from hone.files import atomic_write, locked

POLL_S = 0.25


@dataclass(frozen=True)
class Desired:
    """The list.

    Attributes:
        generation: grows by one with each action.
        loads: (full tag, generation of its last load), in order of loading.
        answers: of them those that answer the paths without a version.
        splits: of models' requests among their versions, as plain values (services/arms).
    """

    generation: int = 0
    loads: tuple[tuple[str, int], ...] = ()
    answers: tuple[str, ...] = ()
    splits: tuple[dict[str, Any], ...] = ()


class DesiredState:
    """The list's file, in a folder that all workers of a server share.

    Args:
        folder: made private to the user.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._file = folder / "models.json"
        self._seen = 0

    def read(self) -> Desired:
        """Return the list; an empty one of generation 0 before any action."""
        try:
            content = orjson.loads(self._file.read_bytes())
        except FileNotFoundError:
            return Desired()
        loads = tuple((tag, load) for tag, load in content["loads"])
        return Desired(content["generation"], loads, tuple(content["answers"]), tuple(content["splits"]))

    def changed(self) -> bool:
        """Return whether the file is another than at the last call; costs one stat."""
        try:
            stamp = self._file.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        changed, self._seen = stamp != self._seen, stamp
        return changed

    def write(
        self,
        present: list[str],
        loaded: str = "",
        *,
        answers: Sequence[str] = (),
        splits: Sequence[dict[str, Any]] = (),
    ) -> Desired:
        """Write what this worker holds as what all should hold.

        Args:
            present: full tags in order of loading.
            loaded: the tag of them that was just loaded, which the others load too, even if they hold it.
            answers, splits: as `Desired` has them.
        """
        with locked(self._folder / "lock"):
            old = self.read()
            generation = old.generation + 1
            known = dict(old.loads)
            loads = tuple((tag, generation if tag == loaded else known.get(tag, 0)) for tag in present)
            found = Desired(generation, loads, tuple(answers), tuple(splits))
            atomic_write(self._file, orjson.dumps(found).decode())
            return found

    @contextmanager
    def leading(self) -> Iterator[bool]:
        """Yield whether this worker may act for all of them now; False while another does."""
        with (self._folder / "leader").open("w") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def report(self, generation: int, problem: str = "") -> None:
        """Note how far this worker is."""
        content = {"generation": generation, "problem": problem}
        atomic_write(self._folder / f"worker-{os.getpid()}.json", orjson.dumps(content).decode())

    async def wait_for_others(self, generation: int, timeout_s: float = 60.0) -> list[str]:
        """Wait until every live worker has followed; return what went wrong in any of them."""
        deadline = time.monotonic() + timeout_s
        while True:
            late, problems = [], []
            for file in self._folder.glob("worker-*.json"):
                pid = int(file.stem.partition("-")[2])
                if not psutil.pid_exists(pid):
                    file.unlink(missing_ok=True)
                    continue
                content = orjson.loads(file.read_bytes())
                if content["generation"] < generation:
                    late.append(pid)
                elif content["problem"]:
                    problems.append(content["problem"])
            if not late:
                return problems
            if time.monotonic() > deadline:
                return [*problems, f"workers {late} have not followed in {timeout_s:g} s"]
            await asyncio.sleep(POLL_S / 5)


def state_folder() -> Path:
    """Return the folder that the workers of this server share: BentoML makes one for metrics anew at each start."""
    shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if not shared:
        return Path(tempfile.mkdtemp(prefix="hone-"))
    return Path(shared) / f"hone-{os.getppid()}"
