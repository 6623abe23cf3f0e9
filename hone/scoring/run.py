"""One run: what is asked for, what of it is done, and the rest of it on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hone.files import check_writable
from hone.services.models.loading import LoadedModel, candidates, load
from hone.services.settings import Settings
from hone.signature import Signature

from .ahead import Ahead, Behind
from .errors import ScoreError
from .mapping import Mapped, mapped
from .parts import InputFile, Parts, Run, assemble, begun, clean_up, folder_of, new_run, opened, read_run
from .reading.base import RowFile
from .reading.find import Input, find
from .scorer import Block, Ready, Running, Scored, Scorer

BLOCK_ROWS, BLOCK_BYTES = 8192, 64_000_000
"""Of a block at most, and what its tensors may take."""
PART_BYTES = 128_000_000
"""A part is written when its answers are so many, whatever the time."""
EACH_AXIS = 256
"""Taken for the size of an axis that isn't known, when memory is planned."""

Progress = Callable[[int, int | None, int], None]
"""Told how many rows are done, of how many (None: not known yet), and how many were put aside."""


@dataclass(frozen=True)
class Request:
    """What a run is to do.

    Attributes:
        model: a stored one: NAME, NAME:VARIANT, NAME@ALIAS or a full tag.
        source: rows: a file, or a folder of Parquet files.
        out: the answers, a .parquet file.
        keep: columns of the source that go through to the answers.
        columns: of an input, where their names don't say it.
        skip_bad: file for rows that can't be used; None: the first of them ends the run.
        every_s: seconds between two parts that are kept.
        restart: throw away what an earlier run kept.
        overwrite: an earlier run's answers.
    """

    model: str
    source: Path
    out: Path
    keep: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skip_bad: Path | None = None
    every_s: float = 10.0
    restart: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Result:
    """What became of a run.

    Attributes:
        model: the tag of what answered.
        rows: answered.
        skipped: put aside.
        resumed: of both, those that an earlier run had done.
        seconds: of this run, without the loading of the model.
    """

    model: str
    rows: int
    skipped: int
    resumed: int
    seconds: float


@dataclass(frozen=True)
class Prepared:
    """What is ready to compute: rows, what answers them, and what is kept already."""

    input: Input
    model: LoadedModel
    mapped: Mapped
    parts: Parts


Spread = Callable[[Prepared, Request, Progress], None]
"""Scores the rows that nothing is kept of yet, and keeps parts of their answers."""


def score(request: Request, progress: Progress, spread: Spread | None = None) -> Result:
    """Score all rows of a source.

    Args:
        request: what to do.
        progress: is told how it goes.
        spread: does the work; None: here.

    Raises:
        RowError: a row can't be used.
        ScoreError: the source or the answers can't be read or written, or belong to another run.
        KeyboardInterrupt: with what is kept.
    """
    _check_out(request)
    source = find(request.source)
    with opened(request.out, restart=request.restart) as folder:
        model = _loaded(request.model, read_run(request.out))
        try:
            prepared = _prepared(request, source, model, folder)
            resumed = sum(part.stop - part.first for part in prepared.parts.done())
            began = time.monotonic()
            try:
                (spread or _here)(prepared, request, progress)
                rows, skipped = assemble(prepared.parts, request.out, request.skip_bad, str(request.source))
                seconds = time.monotonic() - began
            except KeyboardInterrupt:
                raise KeyboardInterrupt(_kept(prepared.parts, request)) from None
        finally:
            model.runtime.close()
    return Result(model.entry.tag, rows, skipped, resumed, seconds)


def _check_out(request: Request) -> None:
    if request.out.suffix != ".parquet":
        raise ScoreError(f"{request.out}: answers go to a .parquet file")
    if request.out.is_dir():
        raise ScoreError(f"{request.out}: is a folder; name a .parquet file")
    if request.out.resolve() == request.source.resolve():
        raise ScoreError(f"{request.out}: is what is read, too")
    clean_up(request.out)
    if request.out.exists() and not request.overwrite:
        raise ScoreError(f"{request.out}: exists already; --overwrite replaces it")
    check_writable(request.out.absolute().parent, "the answers")


def _loaded(reference: str, earlier: Run | None) -> LoadedModel:
    """Return the model, run as the run before was: in batches of other rows, answers may differ in a last bit."""
    settings = replace(Settings.from_environment(), default_timeout_ms=0.0, workers=1)
    if earlier is not None:
        settings = replace(settings, plan=earlier.plan)
    return load(candidates(reference, settings=settings), settings)


def _prepared(request: Request, source: Input, model: LoadedModel, folder: Path) -> Prepared:
    found = mapped(model.offered, source.names, request.keep, request.columns, str(source.files[0].path))
    run = Run(
        run=new_run(),
        model=model.entry.tag,
        digest=model.artifact.digest,
        files=tuple(_file(file.path) for file in source.files),
        columns=dict(found.columns),
        keep=found.keep,
        block_rows=_block_rows(model),
        plan=model.plan.model_dump_json(),
    )
    return Prepared(source, model, found, begun(folder, request.out, run))


def _file(path: Path) -> InputFile:
    state = path.stat()
    return InputFile(path=str(path.absolute()), size=state.st_size, modified_ns=state.st_mtime_ns)


def _block_rows(model: LoadedModel) -> int:
    """Return the rows of a block: whole batches, of no more memory than `BLOCK_BYTES`."""
    signature, batch = model.artifact.signature, model.plan.max_batch_rows
    size = _row_bytes(signature)
    rows = max(1, min(BLOCK_ROWS, BLOCK_BYTES // size))
    return max(1, rows // batch) * batch


def _row_bytes(signature: Signature) -> int:
    total = 0
    for spec in (*signature.inputs, *signature.outputs):
        values = 1
        for axis in spec.shape[1:]:
            values *= axis if isinstance(axis, int) else EACH_AXIS
        total += values * spec.numpy_dtype.itemsize
    return max(1, total)


def blocks(source: Input, columns: Sequence[str], start: int, stop: int | None, size: int) -> Iterator[Block]:
    """Yield a range of rows in blocks; it begins where a block does."""
    for first, file, rows in source.read(columns, start, stop, size):
        yield Block(first, _name(file), rows)


def _name(file: RowFile) -> str:
    return str(file.path)


class Kept:
    """Gathers answers to parts, and writes one when it is large or old enough, or the next rows don't follow."""

    def __init__(self, parts: Parts, every_s: float) -> None:
        self._parts, self._every_s = parts, every_s
        self._held: list[Scored] = []
        self._bytes = 0
        self._since = time.monotonic()

    def take(self, scored: Scored) -> None:
        if self._held and self._held[-1].stop != scored.first:
            self.flush()
        self._held.append(scored)
        self._bytes += scored.table.nbytes
        self.look()

    def look(self) -> None:
        if self._bytes >= PART_BYTES or time.monotonic() - self._since >= self._every_s:
            self.flush()

    def flush(self) -> None:
        if self._held:
            self._parts.write(self._held)
        self._held, self._bytes, self._since = [], 0, time.monotonic()


def _here(prepared: Prepared, request: Request, progress: Progress) -> None:
    """Score what is missing on this machine: a thread reads and runs steps, a thread writes, the model is between."""
    scorer = Scorer(prepared.model, prepared.mapped, skips=request.skip_bad is not None)
    source, parts = prepared.input, prepared.parts
    total = source.rows
    done = sum(part.stop - part.first for part in parts.done())
    progress(done, total, 0)

    def ready() -> Iterator[Ready]:
        for start, stop in parts.missing(total):
            for block in blocks(source, prepared.mapped.needed, start, stop, parts.run.block_rows):
                yield scorer.ready(block)

    kept = Kept(parts, request.every_s)
    reading, writing = Ahead(ready()), Behind(kept.take, kept.look)
    try:
        _compute(scorer, reading, writing, lambda rows, bad: progress(rows, total, bad), done)
    finally:
        reading.close()
        try:
            writing.close()
            kept.flush()  # what is done is kept, whatever ended the run
        finally:
            scorer.close()


def _compute(
    scorer: Scorer, reading: Ahead[Ready], writing: Behind[Scored], told: Callable[[int, int], None], done: int
) -> None:
    """Keep one block more in the runtime than is waited for, so that its threads always have a batch."""
    running: Running | None = None
    bad = 0

    def finish() -> None:
        nonlocal running, done, bad
        begun, running = running, None
        if begun is not None:
            scored = scorer.finish(begun)
            writing.put(scored)
            done, bad = done + scored.stop - scored.first, bad + len(scored.bad)
            told(done, bad)

    try:
        for ready in reading:
            next_one = scorer.start(ready)
            finish()
            running = next_one
    except Exception:
        finish()  # what was begun before the row that is wrong
        raise
    finish()


def _kept(parts: Parts, request: Request) -> str:
    rows = sum(part.stop - part.first for part in parts.done())
    return f"{rows:,} rows are kept in {folder_of(request.out)}; the same command goes on from there"
