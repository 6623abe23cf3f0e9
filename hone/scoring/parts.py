"""What a run keeps while it goes on: parts of the answers in a folder beside them, and what the run is of.

A part is one file of a range of rows, whole or not there; its name says which rows. So a run that was killed goes on
where its parts end, whoever wrote them and however often, and each row is in the answers once.
"""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from hone.errors import one_line
from hone.files import atomic_stream, atomic_write, locked
from hone.records import Record, read_record

from .errors import ScoreError
from .scorer import Scored

RUN = "run.json"
LOCK = ".lock"
BAD = b"hone.bad"
"""Metadata of a part: the rows that were put aside, as JSON."""
PART = re.compile(r"^(\d{12})-(\d{12})\.arrow$")
META = {name: f"hone.{name}".encode() for name in ("run", "model", "digest", "input", "rows", "skipped")}
"""Metadata of the answers."""


class InputFile(Record):
    """A file of rows, as it was when the run began."""

    path: str
    size: int
    modified_ns: int


class Run(Record):
    """What a run is of: the same command goes on with its parts, another doesn't."""

    run: str
    model: str
    digest: str
    files: tuple[InputFile, ...]
    columns: dict[str, tuple[str, ...]]
    keep: tuple[str, ...]
    block_rows: int
    plan: str

    def difference(self, other: Run) -> str:
        """Return what of another run isn't the same, or an empty string."""
        if (self.model, self.digest) != (other.model, other.digest):
            return f"the model was {self.model}, it is {other.model} now"
        if self.files != other.files:
            changed = next((file for file in self.files if file not in other.files), self.files[-1])
            return f"the rows changed: it was of {changed.path} as that was then"
        if (self.columns, self.keep) != (other.columns, other.keep):
            return "other columns were asked for"
        return ""


def new_run() -> str:
    return uuid.uuid4().hex


class Part(NamedTuple):
    """A range of rows whose answers are kept."""

    first: int
    stop: int
    file: Path


@dataclass(frozen=True)
class Parts:
    """The folder of a run."""

    folder: Path
    run: Run

    def done(self) -> list[Part]:
        """Return what is kept, in order; a part that lies in another (written by two) is left out."""
        found = []
        for file in sorted(self.folder.iterdir()):
            if match := PART.match(file.name):
                found.append(Part(int(match[1]), int(match[2]), file))
        kept: list[Part] = []
        for part in sorted(found, key=lambda part: (part.first, -part.stop)):
            if not kept or part.first >= kept[-1].stop:
                kept.append(part)
        return kept

    def missing(self, total: int | None) -> list[tuple[int, int | None]]:
        """Return the ranges of rows that nothing is kept of; the last one has no end where it isn't known."""
        gaps: list[tuple[int, int | None]] = []
        at = 0
        for part in self.done():
            if part.first > at:
                gaps.append((at, part.first))
            at = part.stop
        if total is None or at < total:
            gaps.append((at, total))
        return gaps

    def write(self, blocks: Sequence[Scored]) -> None:
        """Keep the answers to blocks that follow one another."""
        import pyarrow as pa

        file = self.folder / f"{blocks[0].first:012d}-{blocks[-1].stop:012d}.arrow"
        tables = [block.table for block in blocks if block.table.num_columns and len(block.table)]
        schema = _common([table.schema for table in tables] or [blocks[0].table.schema])
        table = pa.concat_tables([_cast(table, schema) for table in tables] or [blocks[0].table])
        bad = orjson.dumps([row for block in blocks for row in block.bad], default=str)
        table = table.replace_schema_metadata({BAD: bad})
        with atomic_stream(file) as stream, pa.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)


def read_run(out: Path) -> Run | None:
    """Return what the parts beside a file of answers are of; None: there are none."""
    file = folder_of(out) / RUN
    return read_record(file, Run, "what a run is of") if file.exists() else None


def folder_of(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


@contextmanager
def opened(out: Path, *, restart: bool) -> Iterator[Path]:
    """Yield the folder of parts beside a file of answers, which nobody else writes meanwhile; without any it goes.

    Args:
        out: the answers.
        restart: throw away what is there.

    Raises:
        ScoreError: somebody else writes it.
    """
    folder = folder_of(out)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder / LOCK, wait=False):
            if restart:
                _empty(folder)
            try:
                yield folder
            finally:
                if not any(PART.match(file.name) for file in folder.glob("*")):
                    _throw_away(folder)
    except BlockingIOError:
        raise ScoreError(f"{out}: another hone score writes it") from None


def _empty(folder: Path) -> None:
    """Remove all that is kept; what it is of goes last, so that what a killed process leaves is still known by it."""
    for file in sorted(folder.iterdir(), key=lambda file: file.name == RUN):
        if file.name != LOCK:
            file.unlink(missing_ok=True)


def _throw_away(folder: Path) -> None:
    with suppress(OSError):
        _empty(folder)
        shutil.rmtree(folder)


def begun(folder: Path, out: Path, run: Run) -> Parts:
    """Return the parts of a run: a new one, or those of the run that was begun; parts that nobody knows the run of go.

    Raises:
        ScoreError: what was begun is something else.
    """
    file = folder / RUN
    if not file.exists():
        _empty(folder)
        atomic_write(file, run.model_dump_json(indent=2) + "\n")
        return Parts(folder, run)
    earlier = read_record(file, Run, "what a run is of")
    parts = Parts(folder, earlier)
    if not parts.done():
        atomic_write(file, run.model_dump_json(indent=2) + "\n")
        return Parts(folder, run)
    if difference := earlier.difference(run):
        raise ScoreError(f"{folder} holds answers of another run: {difference}; --restart throws them away")
    return parts


def assemble(parts: Parts, out: Path, aside: Path | None, source: str) -> tuple[int, int]:
    """Write all answers to one Parquet file, and the rows that were put aside to another; throw the parts away.

    Returns:
        how many rows were answered, and how many were put aside.

    Raises:
        ScoreError: the parts don't hold each row once, or can't be read; or rows were put aside, but nobody says where.
    """
    import pyarrow.parquet as parquet

    done = parts.done()
    if gaps := [part.first for before, part in pairwise(done) if part.first != before.stop]:
        raise ScoreError(f"{parts.folder}: nothing is kept of the rows before {gaps[0]}; run the command again")
    schemas, bad, answered = [], [], 0
    for part in done:
        with _part(part.file) as reader:
            rows = sum(reader.get_batch(index).num_rows for index in range(reader.num_record_batches))
            aside_here = orjson.loads(reader.schema.metadata[BAD])
            if rows + len(aside_here) != part.stop - part.first:
                raise ScoreError(f"{part.file}: holds {rows + len(aside_here)} rows, not {part.stop - part.first}")
            bad += aside_here
            answered += rows
            if rows:
                schemas.append(reader.schema.remove_metadata())
    if bad and aside is None:  # a run before had a file for them
        raise ScoreError(f"{source}: {len(bad):,} rows were put aside by a run before; give --skip-bad FILE for them")
    if not schemas:
        raise ScoreError(f"{source}: no row could be answered" if bad else f"{source}: there are no rows")
    facts = {"run": parts.run.run, "model": parts.run.model, "digest": parts.run.digest, "input": source}
    facts |= {"rows": str(answered), "skipped": str(len(bad))}
    schema = _common(schemas).with_metadata({META[name]: value.encode() for name, value in facts.items()})
    if aside is not None:
        atomic_write(aside, b"".join(orjson.dumps(row) + b"\n" for row in bad))
    with atomic_stream(out) as stream, parquet.ParquetWriter(stream, schema, use_dictionary=_texts(schema)) as writer:
        for part in done:
            with _part(part.file) as reader:
                table = reader.read_all().replace_schema_metadata(None)
                if len(table):
                    writer.write_table(_cast(table, schema))
    _throw_away(parts.folder)
    return answered, len(bad)


@contextmanager
def _part(file: Path) -> Iterator[Any]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(file)) as stream, pa.ipc.open_file(stream) as reader:
            yield reader
    except pa.ArrowInvalid as error:
        raise ScoreError(f"{file}: can't be read: {one_line(error)}; remove it, and run the command again") from None


def _common(schemas: list[Any]) -> Any:
    """Return a schema that all tables' columns fit; a column of numbers here and text there is text."""
    import pyarrow as pa

    return pa.schema([_fitting(fields) for fields in zip(*schemas, strict=True)])


def _fitting(fields: Sequence[Any]) -> Any:
    import pyarrow as pa

    try:
        return pa.unify_schemas([pa.schema([field]) for field in fields], promote_options="permissive").field(0)
    except pa.ArrowException:
        return pa.field(fields[0].name, pa.string())


def _cast(table: Any, schema: Any) -> Any:
    """Return a table as a schema has it; lists and objects that are to be text are JSON."""
    import pyarrow as pa

    columns = []
    for column, field in zip(table.columns, schema, strict=True):
        try:
            columns.append(column.cast(field.type))
        except pa.ArrowNotImplementedError:
            texts = [None if value is None else orjson.dumps(value).decode() for value in column.to_pylist()]
            columns.append(pa.array(texts, field.type))
        except pa.ArrowInvalid as error:  # whole numbers that no fraction can be beside
            raise ScoreError(f"column '{field.name}' can't be kept as {field.type}: {one_line(error)}") from None
    return pa.table(columns, schema)


def _texts(schema: Any) -> list[str] | bool:
    """Return the columns whose values may repeat: a dictionary of numbers that a model gave costs time for nothing."""
    import pyarrow as pa

    return [field.name for field in schema if pa.types.is_string(field.type)] or False


def clean_up(out: Path) -> None:
    """Throw away parts whose answers are there: a run that wrote them ended before it did so itself."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    earlier = read_run(out)
    if earlier is None or not out.exists():
        return
    try:
        finished = (parquet.read_schema(out).metadata or {}).get(META["run"], b"").decode()
    except (pa.ArrowException, OSError):
        return
    if finished == earlier.run:
        _throw_away(folder_of(out))
