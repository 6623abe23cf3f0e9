"""Sketches of the rows that models answer, an hour each, in files: what `hone drift` compares with the proof's rows.

Requests leave copies of a few rows behind once they are answered; a thread sketches them. It takes no more than 64 rows
a second of a model, so that the sketches cost next to nothing at any rate; a clock, a disk or a row that is wrong costs
sketches, never an answer. Of an hour only the sketches are kept, in memory and on disk.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, HoneError, one_line
from hone.files import hash_file
from hone.signature import Tensors
from hone.sketches.bucket import address_of
from hone.sketches.folder import HOUR_S, about, check_folder, remove_oldest, write
from hone.sketches.reference import References, parse_references
from hone.sketches.uploads import Uploads
from hone.sketches.window import Window

from ..settings import Settings

logger = logging.getLogger("hone.serving")

ROWS_A_SECOND = 64
ROWS_A_REQUEST = 16
BYTES_A_SECOND = 2_000_000
TICK_S = 1.0
COMPLAIN_EVERY_S = 60.0


@dataclass
class Sketched:
    """What a worker's sketches have done.

    Attributes:
        rows: sketched.
        failed_writes: of files; what they held is written again, until the hour is over.
    """

    rows: int = 0
    failed_writes: int = 0


class Follower:
    """Takes rows of one version of a model, on the event loop.

    Attributes:
        file: that its windows are written to, of no other worker.
        window: of this hour; None before its first row.
        unwritten: it has rows that its file lacks.
        left: the model was unloaded; what came before is still written.
    """

    def __init__(self, name: str, version: str, references: References, digest: str) -> None:
        self.name, self.version = name, version
        self.references, self.digest = references, digest
        self.file = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self.window: Window | None = None
        self.unwritten = False
        self.left = False
        self._waiting: list[tuple[Tensors, Tensors]] = []
        self._rows, self._bytes = ROWS_A_SECOND, BYTES_A_SECOND

    def take(self, inputs: Tensors, outputs: Tensors) -> bool:
        """Keep copies of some of a request's rows; never blocks. Return whether there is room for another request's."""
        if self._rows <= 0 or self._bytes <= 0:
            return False
        rows = len(next(iter(inputs.values())))
        row_bytes = sum(array.nbytes for array in inputs.values()) // max(1, rows)
        count = min(rows, ROWS_A_REQUEST, self._rows, max(1, self._bytes // max(1, row_bytes)))
        if count:
            places = slice(None) if count == rows else np.arange(count) * rows // count
            kept = [
                {name: array[places].copy() for name, array in tensors.items() if array.ndim and len(array) == rows}
                for tensors in (inputs, outputs)
            ]
            self._waiting.append((kept[0], kept[1]))
        self._rows -= count
        self._bytes -= count * row_bytes
        return self._rows > 0 and self._bytes > 0

    def taken(self) -> list[tuple[Tensors, Tensors]]:
        """Return what was kept since the last time, and make room."""
        waiting, self._waiting = self._waiting, []
        self._rows, self._bytes = ROWS_A_SECOND, BYTES_A_SECOND
        return waiting


class Sketcher:
    """Sketches the traffic of a worker's models.

    Args:
        folder: of the files, or the address of an object store; other workers and hosts may write to it, too.
        flush_s: seconds between two writes: a crash loses no more.
        max_mb, days: of all files; the oldest hours are removed first. An object store is bounded by days alone.
        clock: seconds since 1970.

    Raises:
        HoneError: datasketches is missing, or the folder can't be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        flush_s: float = 10.0,
        max_mb: float = 1024.0,
        days: float = 35.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if find_spec("datasketches") is None:
            raise HoneError("HONE_DRIFT_DIR needs datasketches; pip install 'hone[ops]'")
        check_folder(folder)
        self._uploads = Uploads(folder) if address_of(folder) else None
        self._folder = self._uploads.folder if self._uploads else folder
        self._flush_s = flush_s
        self._max_bytes, self._days = int(max_mb * 1e6), days
        self._clock = clock
        self._followers: list[Follower] = []
        self._written = 0.0
        self._pruned = -1
        self._complained = -COMPLAIN_EVERY_S
        self.stats = Sketched()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="sketches", daemon=True)
        self._thread.start()

    def follow(self, name: str, version: str, artifact: Artifact) -> Follower | None:
        """Return what takes the rows of a model; None, with a line in the log, when it has nothing to compare with."""
        file = artifact.manifest.drift
        if file is None:
            logger.info("%s:%s holds no reference of its proof's rows; its traffic is not sketched", name, version)
            return None
        try:
            references = parse_references(artifact.path / file)
        except ArtifactError as error:
            logger.warning("traffic of %s:%s is not sketched: %s", name, version, error)
            return None
        follower = Follower(name, version, references, hash_file(artifact.path / file))
        self._followers.append(follower)
        return follower

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what there is and stop."""
        self._stop.set()
        self._thread.join(timeout_s)
        if self._uploads is not None and not self._thread.is_alive():
            self._uploads.close()

    def _work(self) -> None:
        while True:
            ending = self._stop.wait(TICK_S)
            due = ending or time.monotonic() - self._written >= self._flush_s
            for follower in list(self._followers):
                try:
                    self._sketch(follower)
                except Exception as error:  # noqa: BLE001 - sketches must never hurt serving
                    self._complain(f"rows of {follower.name}:{follower.version} were not sketched", error)
                if due or follower.left:
                    self._write(follower)
                if follower.left:  # its model was unloaded
                    self._followers.remove(follower)
            if due:
                self._written = time.monotonic()
                self._upload()
                self._prune()
            if ending:
                return

    def _upload(self) -> None:
        try:
            if self._uploads is not None:
                self._uploads.put(int(self._clock()) // HOUR_S)
        except OSError as error:
            self.stats.failed_writes += 1
            self._complain("sketches of traffic can't be put into the object store", error)

    def _sketch(self, follower: Follower) -> None:
        requests = follower.taken()
        now = about(follower.name, follower.version, self._clock(), follower.digest)
        if follower.window is not None and follower.window.about.hour != now.hour:
            self._write(follower)
            follower.window = None
        if not requests:
            return
        if follower.window is None:
            follower.window = Window.empty(now, follower.references.names)
        before = follower.window.rows
        follower.window.add(follower.references, requests)
        follower.unwritten = True
        self.stats.rows += follower.window.rows - before

    def _write(self, follower: Follower) -> None:
        if follower.window is None or not follower.unwritten:
            return
        try:
            file = write(self._folder, follower.window, follower.file)
            follower.unwritten = False
            if self._uploads is not None:
                self._uploads.waiting.add(file)
        except OSError as error:
            self.stats.failed_writes += 1
            self._complain("sketches of traffic can't be written", error)

    def _prune(self) -> None:
        hour = int(self._clock()) // HOUR_S
        if hour == self._pruned:
            return
        self._pruned = hour
        try:
            remove_oldest(self._folder, self._max_bytes, self._days, hour)
            if self._uploads is not None and self._days:
                self._uploads.remove_before(hour - self._days * 24)
        except OSError as error:
            self._complain("old sketches of traffic can't be removed", error)

    def _complain(self, what: str, error: Exception) -> None:
        if time.monotonic() - self._complained >= COMPLAIN_EVERY_S:
            self._complained = time.monotonic()
            logger.error("%s: %s", what, one_line(error))


def make_sketcher(settings: Settings) -> Sketcher:
    """Return what sketches traffic as the settings say.

    Raises:
        HoneError: datasketches is missing, or the folder can't be used.
    """
    return Sketcher(
        Path(settings.drift_dir),
        flush_s=settings.drift_flush_s,
        max_mb=settings.drift_max_mb,
        days=settings.drift_days,
    )
