"""A record of requests and answers in Parquet: a sample for drift and replay, or all of them, to account for.

Off by default: inputs may be personal data. Folders are private to the user, and the total size is bounded. A sample
never hurts serving, whatever goes wrong with the disk; a complete record stops it rather than miss an answer.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import random
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hone.errors import HoneError, one_line
from hone.signature import Tensors
from hone.traffic.keys import RecordKey, read_key
from hone.traffic.parquet import read_table

from ..http.failures import OverloadedError
from ..settings import Settings
from .record_chain import append
from .record_table import Record, make_hidden, parse_hidden, to_table

logger = logging.getLogger("hone.serving")

COMPLETE = "complete"
SAMPLED_AGE_S = 60.0
COMPLETE_AGE_S = 2.0
RETRY_S = 1.0
COMPLAIN_EVERY_S = 60.0


@dataclass(frozen=True)
class Recorded:
    """What a recorder has done.

    Attributes:
        rows: in files.
        dropped: rows sampled but not kept: the queue was full or a write failed.
        failed_writes: of files.
        files: written.
    """

    rows: int = 0
    dropped: int = 0
    failed_writes: int = 0
    files: int = 0


@dataclass
class _Buffer:
    """Records of one model and version that wait for their file."""

    records: list[Record] = field(default_factory=list)
    rows: int = 0
    since: float = 0.0
    not_before: float = 0.0


def check_folder(folder: Path) -> None:
    """Make the folder of recorded traffic, private to the user.

    Raises:
        HoneError: pyarrow is missing, or the folder can't be made or written to.
    """
    if find_spec("pyarrow") is None:
        raise HoneError("HONE_RECORD_DIR needs pyarrow; pip install 'hone[ops]'")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise HoneError(f"{folder}: traffic can't be recorded there: {error.strerror}") from None


class Recorder:
    """Writes requests, a row of tensors a row of the file.

    Columns: time, model, version, request_id, row, latency_ms, arm (while requests are split), and `input.NAME` and
    `output.NAME`: a value, or a list for a tensor's row, with `NAME.shape` beside it where a row has several axes.

    Args:
        folder: files are `model=NAME/version=VERSION/part-*.parquet` in it, chained: services/observe/record_chain.py.
        sample: share of requests, 0 to 1.
        complete: keep every request, for those who must account for each answer: one that can't be queued is refused,
            and what a full disk doesn't take waits until it does.
        hidden: columns that are left out or hashed, by name: services/observe/record_table.py.
        key: that files are encrypted with.
        max_queue_rows: that wait to be written; more are dropped, or refused when `complete`.
        rows_per_file: a file is written when so many rows wait,
        max_age_s: or the oldest has waited so long.
        max_total_mb: of all files; the oldest are removed first.
        max_days: age at which a file is removed; 0: no limit.
        seed: of the sampling.

    Raises:
        HoneError: pyarrow is missing or the folder can't be made.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sample: float = 1.0,
        complete: bool = False,
        hidden: Mapping[str, str] | None = None,
        key: RecordKey | None = None,
        max_queue_rows: int = 10_000,
        rows_per_file: int = 50_000,
        max_age_s: float | None = None,
        max_total_mb: float = 1024.0,
        max_days: float = 0.0,
        seed: int | None = None,
    ) -> None:
        check_folder(folder)
        self.complete = complete
        self._folder = folder
        self._sample = sample
        self._key = key
        self._hidden = make_hidden(hidden or {}, folder)
        self._max_queue_rows = max_queue_rows
        self._rows_per_file = rows_per_file
        self._max_age_s = (COMPLETE_AGE_S if complete else SAMPLED_AGE_S) if max_age_s is None else max_age_s
        self._max_total = int(max_total_mb * 1e6)
        self._max_days = max_days
        self._random = random.Random(seed)
        self._queue: queue.SimpleQueue[Record | None] = queue.SimpleQueue()
        self._queued = 0
        self._settled = 0
        self._dropped = 0
        self._done = Recorded()
        self._complained = -COMPLAIN_EVERY_S
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    @property
    def stats(self) -> Recorded:
        return replace(self._done, dropped=self._done.dropped + self._dropped)

    def offer(
        self,
        model: str,
        version: str,
        request_id: str,
        inputs: Tensors,
        outputs: Tensors,
        seconds: float,
        arm: str = "",
    ) -> None:
        """Record a request if it is sampled; never blocks, never fails."""
        if self._random.random() >= self._sample:
            return
        if not self._put(model, version, request_id, inputs, outputs, seconds, arm):
            self._dropped += len(next(iter(inputs.values())))

    def require(
        self, model: str, version: str, request_id: str, inputs: Tensors, outputs: Tensors, seconds: float,
        arm: str = "", first_row: int = 0,
    ) -> None:  # fmt: skip
        """Record a request; never blocks.

        Args:
            first_row: number of its first row, where it is a part of a job.

        Raises:
            OverloadedError: too many wait to be written, so it must not be answered.
        """
        if not self._put(model, version, request_id, inputs, outputs, seconds, arm, first_row):
            raise OverloadedError("answers can't be recorded fast enough, or not at all; the server's log says why")

    def _put(
        self, model: str, version: str, request_id: str, inputs: Tensors, outputs: Tensors, seconds: float,
        arm: str = "", first_row: int = 0,
    ) -> bool:  # fmt: skip
        rows = len(next(iter(inputs.values())))
        waiting = self._queued - self._settled  # each is counted by one thread, so that none is ever lost
        if waiting and waiting + rows > self._max_queue_rows:
            return False
        self._queued += rows
        # Copies: a view would keep the batch that it was part of, and the request's body, in memory.
        kept = [{name: array.copy() for name, array in tensors.items()} for tensors in (inputs, outputs)]
        now = time.time_ns() // 1000
        self._queue.put(Record(now, model, version, request_id, seconds, kept[0], kept[1], arm, first_row))
        return True

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits and stop."""
        self._queue.put(None)
        self._thread.join(timeout_s)

    def _work(self) -> None:
        buffers: dict[tuple[str, str], _Buffer] = {}
        while True:
            with contextlib.suppress(queue.Empty):
                record = self._queue.get(timeout=min(1.0, self._max_age_s))
                if record is None:
                    for key, buffer in buffers.items():
                        self._write(key, buffer, last=True)
                    return
                buffer = buffers.setdefault((record.model, record.version), _Buffer())
                buffer.since = buffer.since if buffer.records else time.monotonic()
                buffer.records.append(record)
                buffer.rows += record.rows
            now = time.monotonic()
            for key, buffer in list(buffers.items()):
                due = buffer.rows >= self._rows_per_file or now - buffer.since >= self._max_age_s
                if due and now >= buffer.not_before and self._write(key, buffer):
                    del buffers[key]

    def _write(self, key: tuple[str, str], buffer: _Buffer, last: bool = False) -> bool:
        """Write a buffer's file; return whether the buffer is settled: written, or given up."""
        try:
            place = self._folder / f"model={key[0]}" / f"version={key[1]}"
            append(self._folder, place, to_table(buffer.records, self._hidden), self._key)
        except Exception as error:  # noqa: BLE001 - recording must never hurt serving
            keep = self.complete and not last
            self._done = replace(
                self._done,
                dropped=self._done.dropped + (0 if keep else buffer.rows),
                failed_writes=self._done.failed_writes + 1,
            )
            self._complain(keep, buffer.rows, error)
            if keep:
                buffer.not_before = time.monotonic() + RETRY_S
                return False
        else:
            self._done = replace(self._done, rows=self._done.rows + buffer.rows, files=self._done.files + 1)
        self._settled += buffer.rows
        with contextlib.suppress(OSError):
            remove_oldest(self._folder, self._max_total, self._max_days)
        return True

    def _complain(self, keep: bool, rows: int, error: Exception) -> None:
        if time.monotonic() - self._complained < COMPLAIN_EVERY_S and keep:
            return
        self._complained = time.monotonic()
        what = "waits, and requests are refused when too much does" if keep else "is lost"
        logger.error("recorded traffic %s, %d rows: %s", what, rows, one_line(error))


def make_recorder(settings: Settings) -> Recorder:
    """Return the recorder that the settings describe.

    Raises:
        HoneError: pyarrow is missing, or the folder can't be used.
    """
    return Recorder(
        Path(settings.record_dir),
        sample=settings.record_sample,
        complete=settings.record_mode == COMPLETE,
        hidden=parse_hidden(settings.record_exclude),
        key=read_key(settings.record_key_file),
        max_total_mb=settings.record_max_mb,
        max_days=settings.record_days,
    )


def remove_oldest(folder: Path, max_bytes: int, max_days: float) -> None:
    """Remove the oldest files until the rest is small and young enough; the newest stays."""
    files = sorted(folder.glob("model=*/version=*/*.parquet"), key=lambda file: file.name)
    sizes = [file.stat().st_size for file in files]
    total, oldest = sum(sizes), time.time() - max_days * 86_400 if max_days else 0.0
    for file, size in zip(files[:-1], sizes[:-1], strict=True):
        if total <= max_bytes and file.stat().st_mtime >= oldest:
            return
        file.unlink(missing_ok=True)
        total -= size


def read(folder: Path, model: str | None = None, key: RecordKey | None = None) -> Any:
    """Return everything recorded, or what was recorded of one model, as an Arrow table.

    Args:
        key: of encrypted files; see `hone.traffic.keys.read_key`.

    Raises:
        HoneError: there is nothing, or a file is encrypted and this is not its key.
    """
    import pyarrow as pa

    files = sorted(folder.glob(f"model={model or '*'}/version=*/*.parquet"))
    if not files:
        raise HoneError(f"{folder}: no recorded traffic{f' of {model}' if model else ''}")
    tables = [read_table(file, key) for file in files]
    return pa.concat_tables(tables, promote_options="default").sort_by("time")
