"""A sampled record of requests and answers in Parquet, for drift, A/B comparisons and replay.

Off by default: inputs may be personal data. Folders are private to the user, the total size is bounded, and whatever
goes wrong with the disk, the service goes on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import random
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import HoneError
from services.batching import Tensors

logger = logging.getLogger("hone.serving")

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


@dataclass(frozen=True)
class _Record:
    time_us: int
    model: str
    version: str
    request_id: str
    seconds: float
    inputs: Tensors
    outputs: Tensors

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass
class _Buffer:
    """Records of one model and version that wait for their file."""

    records: list[_Record] = field(default_factory=list)
    rows: int = 0
    since: float = 0.0


def check_folder(folder: Path) -> None:
    """Make the folder of recorded traffic, private to the user.

    Raises:
        HoneError: pyarrow is missing, or the folder can't be made or written to.
    """
    if find_spec("pyarrow") is None:
        raise HoneError("HONE_RECORD_DIR needs pyarrow; install the [ops] extra")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise HoneError(f"{folder}: traffic can't be recorded there: {error.strerror}") from None


class Recorder:
    """Writes sampled requests, a row of tensors a row of the file.

    Columns: time, model, version, request_id, row, latency_ms, and `input.NAME` and `output.NAME`: a value, or a list
    for a tensor's row, with `NAME.shape` beside it where a row has more than one axis.

    Args:
        folder: files are `model=NAME/version=VERSION/part-*.parquet` in it.
        sample: share of requests, 0 to 1.
        max_queue_rows: that wait to be written; more are dropped.
        rows_per_file: a file is written when so many rows wait,
        max_age_s: or the oldest has waited so long.
        max_total_mb: of all files; the oldest are removed first.
        seed: of the sampling.

    Raises:
        HoneError: pyarrow is missing or the folder can't be made.
    """

    def __init__(
        self,
        folder: Path,
        *,
        sample: float = 1.0,
        max_queue_rows: int = 10_000,
        rows_per_file: int = 50_000,
        max_age_s: float = 60.0,
        max_total_mb: float = 1024.0,
        seed: int | None = None,
    ) -> None:
        check_folder(folder)
        self._folder = folder
        self._sample = sample
        self._max_queue_rows = max_queue_rows
        self._rows_per_file = rows_per_file
        self._max_age_s = max_age_s
        self._max_total = int(max_total_mb * 1e6)
        self._random = random.Random(seed)
        self._queue: queue.SimpleQueue[_Record | None] = queue.SimpleQueue()
        self._waiting = 0
        self._dropped = 0
        self._done = Recorded()
        self._complained = -COMPLAIN_EVERY_S
        self._files = 0
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    @property
    def stats(self) -> Recorded:
        return replace(self._done, dropped=self._done.dropped + self._dropped)

    def offer(
        self, model: str, version: str, request_id: str, inputs: Tensors, outputs: Tensors, seconds: float
    ) -> None:
        """Record a request if it is sampled; never blocks, never fails."""
        if self._random.random() >= self._sample:
            return
        rows = len(next(iter(inputs.values())))
        if self._waiting + rows > self._max_queue_rows:
            self._dropped += rows
            return
        self._waiting += rows
        # Copies: a view would keep the batch that it was part of, and the request's body, in memory.
        kept = [{name: array.copy() for name, array in tensors.items()} for tensors in (inputs, outputs)]
        self._queue.put(_Record(time.time_ns() // 1000, model, version, request_id, seconds, *kept))

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
                        self._write(key, buffer)
                    return
                buffer = buffers.setdefault((record.model, record.version), _Buffer())
                buffer.since = buffer.since if buffer.records else time.monotonic()
                buffer.records.append(record)
                buffer.rows += record.rows
            now = time.monotonic()
            for key in list(buffers):
                if buffers[key].rows >= self._rows_per_file or now - buffers[key].since >= self._max_age_s:
                    self._write(key, buffers.pop(key))

    def _write(self, key: tuple[str, str], buffer: _Buffer) -> None:
        try:
            self._write_file(key, buffer.records)
            self._done = replace(self._done, rows=self._done.rows + buffer.rows, files=self._done.files + 1)
            self._remove_oldest()
        except Exception as error:  # noqa: BLE001 - recording must never hurt serving
            self._done = replace(
                self._done, dropped=self._done.dropped + buffer.rows, failed_writes=self._done.failed_writes + 1
            )
            if time.monotonic() - self._complained >= COMPLAIN_EVERY_S:
                self._complained = time.monotonic()
                logger.error("recorded traffic is lost, %d rows: %s", buffer.rows, error)
        finally:
            self._waiting -= buffer.rows

    def _write_file(self, key: tuple[str, str], records: list[_Record]) -> None:
        import pyarrow.parquet as pq

        folder = self._folder / f"model={key[0]}" / f"version={key[1]}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._files += 1
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        target = folder / f"part-{stamp}-{os.getpid()}-{self._files}.parquet"
        partial = target.with_suffix(".tmp")
        try:
            handle = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as stream:
                pq.write_table(to_table(records), stream, compression="zstd")
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(target)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def _remove_oldest(self) -> None:
        files = sorted(self._folder.glob("model=*/version=*/*.parquet"), key=lambda file: file.name)
        sizes = [file.stat().st_size for file in files]
        total = sum(sizes)
        for file, size in zip(files[:-1], sizes[:-1], strict=True):
            if total <= self._max_total:
                return
            file.unlink(missing_ok=True)
            total -= size


def to_table(records: list[_Record]) -> Any:
    """Return records of one model as an Arrow table."""
    import pyarrow as pa

    counts = [record.rows for record in records]

    def repeat(values: list[Any], kind: Any) -> Any:
        return pa.array([value for value, count in zip(values, counts, strict=True) for _ in range(count)], kind)

    columns = {
        "time": repeat([record.time_us for record in records], pa.timestamp("us", "UTC")),
        "model": repeat([record.model for record in records], pa.string()),
        "version": repeat([record.version for record in records], pa.string()),
        "request_id": repeat([record.request_id for record in records], pa.string()),
        "row": pa.array([row for count in counts for row in range(count)], pa.int32()),
        "latency_ms": repeat([record.seconds * 1e3 for record in records], pa.float64()),
    }
    for side, tensors in (("input", [r.inputs for r in records]), ("output", [r.outputs for r in records])):
        for name in tensors[0]:
            columns |= _columns(f"{side}.{name}", [part[name] for part in tensors], counts)
    return pa.table(columns)


def _columns(name: str, arrays: list[np.ndarray], counts: list[int]) -> dict[str, Any]:
    import pyarrow as pa

    # An output without the batch axis belongs to every row of its request.
    rows = [row for array, count in zip(arrays, counts, strict=True) for row in _rows(array, count)]
    kind = pa.string() if rows[0].dtype.kind == "O" else pa.from_numpy_dtype(rows[0].dtype)
    if rows[0].ndim == 0:
        return {name: pa.array([row.item() for row in rows], kind)}
    columns = {name: pa.array([row.reshape(-1).tolist() for row in rows], pa.list_(kind))}
    if rows[0].ndim > 1:
        columns[f"{name}.shape"] = pa.array([list(row.shape) for row in rows], pa.list_(pa.int32()))
    return columns


def _rows(array: np.ndarray, count: int) -> list[np.ndarray]:
    if array.ndim and len(array) == count:
        return [np.asarray(row) for row in array]
    return [array] * count


def read(folder: Path, model: str | None = None) -> Any:
    """Return everything recorded, or what was recorded of one model, as an Arrow table.

    Raises:
        HoneError: there is nothing.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = sorted(folder.glob(f"model={model or '*'}/version=*/*.parquet"))
    if not files:
        raise HoneError(f"{folder}: no recorded traffic{f' of {model}' if model else ''}")
    tables = [pq.ParquetFile(file).read() for file in files]
    return pa.concat_tables(tables, promote_options="default").sort_by("time")
