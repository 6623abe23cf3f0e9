"""Notes each answered request, and takes feedback on them. A request costs a microsecond; a thread writes.

It never hurts an answer: what a disk doesn't take is dropped and counted. Feedback that can't be written is refused, so
that whoever sent it can send it again.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import tempfile
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import HoneError, one_line
from hone.signature import Tensors
from hone.sketches.folder import HOUR_S, remove_oldest
from hone.traffic import feedback
from hone.traffic.answered import FOLDER, MOST_ROWS, Columns, join_parts, place_of, write_part
from hone.traffic.keys import RecordKey, hash_secret, hashed, read_key
from hone.traffic.parquet import require_pyarrow

from ..settings import Settings

logger = logging.getLogger("hone.serving")

TICK_S = 1.0
MOST_WAITING = 50_000
"""Answers that wait for the thread's next turn; more are dropped."""
COMPLAIN_EVERY_S = 60.0
NOTHING = np.empty((0, 0, 0, 0, 0, 0))
"""In place of an output that an answer lacks."""


@dataclass(frozen=True)
class Collected:
    """What a worker has collected.

    Attributes:
        answers: in files.
        dropped: answers that are not kept: too many waited, or a write failed.
        entries: of feedback, taken.
    """

    answers: int = 0
    dropped: int = 0
    entries: int = 0


_Note = tuple[tuple[str, str], float, bytes, str, str, bytes | None, Tensors, float]
"""An answer as a request leaves it behind: the model and its version, when, its id, arm, how it came to that, who
called, outputs, seconds. A plain tuple: one is made of every answer."""

_Kind = tuple[tuple[str, str], int, tuple[tuple[str, tuple[int, ...]], ...]]
"""Of answers that make one table: the model and its version, the hour, and the outputs that are kept, with shapes."""


class Collector:
    """Keeps answers and feedback of a worker.

    Args:
        folder: of the files; other workers and hosts may write to it, too.
        key: that they are encrypted with.
        flush_s: seconds between two writes of answers: a crash loses no more.
        max_mb, days: of all files of each kind; the oldest hours are removed first.
        clock: seconds since 1970.

    Raises:
        HoneError: pyarrow is missing, or the folder can't be used.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key: RecordKey | None = None,
        flush_s: float = 10.0,
        max_mb: float = 1024.0,
        days: float = 35.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_folder(folder)
        self._folder, self._key = folder, key
        self._flush_s, self._max_bytes, self._days = flush_s, int(max_mb * 1e6), days
        self._clock = clock
        secret = hash_secret(folder, key)
        self._unit = lru_cache(65_536)(lambda caller: hashed(caller, secret))
        self._worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._waiting: deque[_Note] = deque()
        self._dropped = 0
        self._entries = 0
        self._done = Collected()
        self._number = 0
        self._places: dict[Path, int] = {}
        self._pruned = -1
        self._complained = -COMPLAIN_EVERY_S
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)
        self._thread.start()

    @property
    def stats(self) -> Collected:
        return replace(self._done, dropped=self._done.dropped + self._dropped, entries=self._entries)

    def note(
        self, about: tuple[str, str], request_id: bytes, outputs: Tensors, arm: str, by: str, caller: bytes | None,
        seconds: float = 0.0,
    ) -> None:  # fmt: skip
        """Note that a request is answered; never blocks, never fails.

        Args:
            about: the model and the version.
            outputs: those that are kept, which nobody changes any more.
            caller: whose request it is, as the caller's header says; a thread hashes it.
            seconds: that the answer took.
        """
        if len(self._waiting) >= MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append((about, time.time(), request_id, arm, by, caller, outputs, seconds))

    def take(self, model: str, entries: Sequence[feedback.Feedback]) -> None:
        """Write feedback; on return it is on the disk. A thread may call it.

        Raises:
            OSError: it can't be written.
        """
        feedback.append(self._folder, model, entries, self._worker, self._key, self._clock())
        self._entries += len(entries)

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits and stop."""
        self._stop.set()
        self._thread.join(timeout_s)

    def _work(self) -> None:
        held: dict[_Kind, list[Any]] = defaultdict(list)
        written = time.monotonic()
        while True:
            ending = self._stop.wait(TICK_S)
            notes = [self._waiting.popleft() for _ in range(len(self._waiting))]
            for kind, some in _by_kind(notes).items():
                held[kind].append(self._table(kind, some))
            notes.clear()
            crowded = sum(table.num_rows for tables in held.values() for table in tables) >= MOST_WAITING
            if ending or crowded or time.monotonic() - written >= self._flush_s:
                written = time.monotonic()
                for kind, tables in held.items():
                    self._write(kind, tables)
                held.clear()
                self._tidy()
            if ending:
                return

    def _table(self, kind: _Kind, notes: Sequence[_Note]) -> Any:
        """Return answers as a table. It holds copies: a view would keep the batch that it was part of in memory."""
        _, times, ids, arms, bys, callers, outputs, seconds = zip(*notes, strict=True)
        units = [self._unit(caller) if caller else "" for caller in callers] if any(callers) else ("",) * len(notes)
        times_us = (np.array(times) * 1e6).astype(np.int64)
        kept = {name: [one[name] for one in outputs] for name, _ in kind[2]}
        return Columns(times_us, ids, arms, bys, units, seconds, kept).table()

    def _write(self, kind: _Kind, tables: list[Any]) -> None:
        """Write answers of a kind."""
        import pyarrow as pa
        import pyarrow.compute as pc

        about, hour, _ = kind
        place, whole = place_of(self._folder, *about, hour), pa.concat_tables(tables)
        count = pc.sum(pc.equal(whole["row"], 0)).as_py()
        try:
            self._number += 1
            write_part(place, self._worker, self._number, whole, self._key)
        except Exception as error:  # noqa: BLE001 - what is kept must never hurt serving
            self._done = replace(self._done, dropped=self._done.dropped + count)
            self._complain("who got which answer can't be written", error)
        else:
            self._places[place] = hour
            self._done = replace(self._done, answers=self._done.answers + count)

    def _tidy(self) -> None:
        """Join the files of hours that are over, and remove the oldest, once an hour."""
        hour = int(self._clock()) // HOUR_S
        if hour == self._pruned:
            return
        self._pruned = hour
        try:
            for place in [place for place, of in self._places.items() if of < hour]:
                del self._places[place]
                join_parts(self._folder, place, self._worker, self._key)
            for kind in (FOLDER, feedback.FOLDER):
                remove_oldest(self._folder / kind, self._max_bytes, self._days, hour)
        except Exception as error:  # noqa: BLE001
            self._complain("old answers can't be joined or removed", error)

    def _complain(self, what: str, error: Exception) -> None:
        if time.monotonic() - self._complained >= COMPLAIN_EVERY_S:
            self._complained = time.monotonic()
            logger.error("%s: %s", what, one_line(error))


def _by_kind(notes: list[_Note]) -> dict[_Kind, list[_Note]]:
    """Return answers by what makes one table of them; nearly always all do, and none is looked at by itself."""
    if not notes:
        return {}
    if (kind := _kind(notes[0])) == _kind(notes[-1]) and _all_are(kind, notes):
        return {kind: notes}
    found: dict[_Kind, list[_Note]] = defaultdict(list)
    for note in notes:
        found[_kind(note)].append(note)
    return found


def _all_are(kind: _Kind, notes: list[_Note]) -> bool:
    """Return whether answers are of one kind, with few rows each; the hour is that of the first and the last."""
    about, _, shapes = kind
    outputs = [note[6] for note in notes]
    return (
        {note[0] for note in notes} == {about}
        and {len(one) for one in outputs} == {len(shapes)}
        and all(
            {array.shape[1:] for array in arrays} == {shape} and max(map(len, arrays)) <= MOST_ROWS
            for name, shape in shapes
            for arrays in [[one.get(name, NOTHING) for one in outputs]]
        )
    )


def _kind(note: _Note) -> _Kind:
    about, at, *_, outputs, _ = note
    few = all(len(array) <= MOST_ROWS for array in outputs.values())
    shapes = tuple((name, array.shape[1:]) for name, array in outputs.items()) if few else ()
    return about, int(at) // HOUR_S, shapes


def check_folder(folder: Path) -> None:
    """Make the folder, private to the user.

    Raises:
        HoneError: pyarrow is missing, or it can't be made or written to.
    """
    require_pyarrow()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise HoneError(f"{folder}: answers and feedback can't be kept there: {error.strerror}") from None


def make_collector(settings: Settings) -> Collector:
    """Return what keeps answers and feedback as the settings say.

    Raises:
        HoneError: pyarrow is missing, the folder can't be used, or the key is none.
    """
    return Collector(
        Path(settings.feedback_dir),
        key=read_key(settings.record_key_file),
        flush_s=settings.feedback_flush_s,
        max_mb=settings.feedback_max_mb,
        days=settings.feedback_days,
    )
