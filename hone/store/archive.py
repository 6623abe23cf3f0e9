"""Archives of stored artifacts: `.tar.gz` files that another host imports. What is in one is data, until it is checked.

The manifest stands first and says which files follow, of which size and hash. Nothing is written before it has been
checked, nothing but what it lists, and no more bytes than it says.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

import yaml

from hone.artifact import MANIFEST, SIGNATURE, STORE_RECORD, Artifact, FileRecord, Manifest, parse_manifest
from hone.errors import ArtifactError, StoreError, one_line
from hone.files import Metered, atomic_stream
from hone.names import check_tag, shown
from hone.store.changes import add
from hone.store.entry import Entry, models_dir
from hone.store.origins import Origin

RECORDS = (MANIFEST, STORE_RECORD, SIGNATURE)
"""What an archive holds beside the artifact's own files, and in this order before them."""
RECORD_BYTES = 16_000_000
STORE_RECORD_BYTES = 16_000
"""Of BentoML's record, a page of YAML: 800 kB of it take 18 s to read. (libyaml is faster, and overruns the stack when
values lie deep within each other.)"""
HEADER_BYTES = 1_000_000
MAX_BYTES = 20_000_000_000
MAX_FILES = 10_000
MAX_RATIO = 100
"""Packed tighter than this, large content is taken for a bomb: weights hardly pack at all."""
SMALL = 100_000_000
"""Bytes that may be packed as tightly as can be."""
CHUNK = 1 << 20


@dataclass(frozen=True)
class Contents:
    """What an archive says of itself.

    Attributes:
        name, version: the tag it was exported under.
        manifest: checked; its files are not, yet.
        records: MANIFEST and, where there is one, SIGNATURE, byte for byte.
    """

    name: str
    version: str
    manifest: Manifest
    records: dict[str, bytes]


def export(entry: Entry, target: Path) -> Path:
    """Write an entry as a `.tar.gz` that `hone models import` and `bentoml models import` read.

    Raises:
        StoreError: the target can't be written.
        ArtifactError: a file of the entry is corrupt.
    """
    artifact = entry.opened()
    file = target / f"{entry.name}-{entry.version}.tar.gz" if target.is_dir() else target
    if not file.name.endswith((".tar.gz", ".tgz")):
        raise StoreError(f"{file}: no such folder; make it first, or give a file name that ends in .tar.gz")
    try:
        with atomic_stream(file) as stream, tarfile.open(fileobj=stream, mode="w:gz") as archive:
            for name in (*RECORDS, *sorted(artifact.manifest.files)):
                if (entry.path / name).exists():
                    archive.add(entry.path / name, name, recursive=False)
    except OSError as error:
        raise StoreError(f"{file}: cannot be written: {error.strerror or one_line(error)}") from error
    return file


def read_contents(file: Path, max_bytes: int | None = None) -> Contents:
    """Return what an archive says of itself, reading no further than that.

    Args:
        file: the archive.
        max_bytes: of all files together; None takes MAX_BYTES, and refuses what is packed as tightly as bombs are.

    Raises:
        StoreError: it can't be read, isn't an exported model, or is too large.
        ArtifactError: its manifest is wrong.
    """
    records: dict[str, bytes] = {}
    with _open(file) as members:
        for name, stream, size in members:
            if name in RECORDS and name not in records:
                _check_record(file, name, size)
                records[name] = stream.read(size)
            elif {MANIFEST, STORE_RECORD} <= records.keys():
                break  # files have begun
    for name in (MANIFEST, STORE_RECORD):
        if name not in records:
            raise StoreError(f"{file}: not an exported model: {name} is missing")
    manifest = parse_manifest(records[MANIFEST], file / MANIFEST)
    name, version = _tag(file, records.pop(STORE_RECORD))
    _check_size(file, manifest, max_bytes)
    return Contents(name, version, manifest, records)


Admit = Callable[[Contents, Artifact], Origin]
"""Given what an archive says and the artifact in it: where it is from, for the store; raises HoneError when it may not
come in."""


def import_archive(file: Path, *, max_bytes: int | None = None, admit: Admit) -> Entry:
    """Add an exported entry to the store, after checking every file's size and hash.

    Args:
        file: the archive.
        max_bytes: see `read_contents`.
        admit: decides whether the artifact may come in; asked before anything is written, and again of the files.

    Raises:
        StoreError: the archive can't be read, isn't an exported model or is too large, its tag is taken, or the disk is
            too small.
        ArtifactError: its manifest is wrong or a file in it corrupt.
    """
    contents = read_contents(file, max_bytes)
    origin = admit(contents, preview(contents, file))
    root = models_dir()
    root.mkdir(parents=True, exist_ok=True)
    needed, free = contents.manifest.size_bytes + 2 * RECORD_BYTES, shutil.disk_usage(root).free
    if needed > free:
        raise StoreError(f"{file}: needs {needed / 1e6:,.0f} MB, {root} has {free / 1e6:,.0f} MB free")

    def fill(target: Path) -> None:
        for name, content in contents.records.items():
            (target / name).write_bytes(content)
        for name, stream, record in _files(file, contents):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            with (target / name).open("wb") as out:
                _copy(stream, record, name, file, out.write)
        admit(contents, Artifact(target, contents.manifest))

    return add(contents.manifest, contents.name, contents.version, fill, origin)


def verify_archive(file: Path, max_bytes: int | None = None) -> Contents:
    """Check every file of an archive without writing any; return what it says of itself.

    Raises:
        StoreError, ArtifactError: as `import_archive`.
    """
    contents = read_contents(file, max_bytes)
    found = set()
    for name, stream, record in _files(file, contents):
        _copy(stream, record, name, file, lambda _: None)
        found.add(name)
    missing = sorted(contents.manifest.files.keys() - found)
    if missing:
        raise ArtifactError(f"{file}: {missing[0]}: missing; {MANIFEST} lists it")
    return contents


def preview(contents: Contents, file: Path) -> Artifact:
    """Return the artifact in an archive, to ask what it would run; its files can't be opened."""
    return Artifact(file, contents.manifest)


def _check_record(file: Path, name: str, size: int) -> None:
    if size > (STORE_RECORD_BYTES if name == STORE_RECORD else RECORD_BYTES):
        raise StoreError(f"{file}: {name} has {size:,} bytes, too many for what it is")


def _tag(file: Path, record: bytes) -> tuple[str, str]:
    try:
        content = yaml.safe_load(record)
        name, version = content["name"], content["version"]
    except (yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"{file}: not an exported model: {STORE_RECORD}: {one_line(error)}") from None
    if not isinstance(name, str) or not isinstance(version, str):
        raise StoreError(f"{file}: not an exported model: {STORE_RECORD}: name and version must be texts")
    try:
        check_tag(name, version)
    except StoreError as error:
        raise StoreError(f"{file}: {STORE_RECORD}: {error}") from None
    return name, version


def _check_size(file: Path, manifest: Manifest, max_bytes: int | None) -> None:
    size, packed = manifest.size_bytes, file.stat().st_size
    limit = MAX_BYTES if max_bytes is None else max_bytes
    if len(manifest.files) > MAX_FILES:
        raise StoreError(f"{file}: {len(manifest.files):,} files, more than {MAX_FILES:,}")
    if size > limit:
        raise StoreError(f"{file}: unpacks to {size / 1e6:,.0f} MB, more than {limit / 1e6:,.0f} MB; see --max-size")
    if max_bytes is None and size > SMALL and size > MAX_RATIO * packed:
        raise StoreError(
            f"{file}: {packed / 1e6:,.1f} MB unpack to {size / 1e6:,.0f} MB, more tightly than weights do; "
            "give --max-size if that is right"
        )


def _files(file: Path, contents: Contents) -> Iterator[tuple[str, IO[bytes], FileRecord]]:
    """Yield the files that the manifest lists; any other member is refused before it is read."""
    left = dict(contents.manifest.files)
    with _open(file) as members:
        for name, stream, size in members:
            if name in RECORDS:
                _check_record(file, name, size)
                continue
            record = left.pop(name, None)
            if record is None:
                raise ArtifactError(f"{file}: {shown(name)}: not listed in {MANIFEST}, or there twice")
            if record.size != size:
                raise ArtifactError(f"{file}: {shown(name)}: corrupt, {size} bytes instead of {record.size}")
            yield name, stream, record


def _copy(stream: IO[bytes], record: FileRecord, name: str, file: Path, write: Callable[[bytes], object]) -> None:
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        write(chunk)
    if digest.hexdigest() != record.sha256:
        raise ArtifactError(f"{file}: {name}: corrupt, its sha256 is not the one in {MANIFEST}")


@contextmanager
def _open(file: Path) -> Iterator[Iterator[tuple[str, IO[bytes], int]]]:
    """Yield an archive's regular files in order: name, stream, size. Folders are passed over, all else is refused."""
    if not file.is_file():
        raise StoreError(f"{file}: no such file")
    try:
        with file.open("rb") as packed:
            magic = packed.read(2)
            packed.seek(0)
            plain = cast(BinaryIO, gzip.GzipFile(fileobj=packed)) if magic == b"\x1f\x8b" else packed
            too_long = StoreError("holds headers or members longer than they say, or than any that hone writes")
            meter = Metered(plain, HEADER_BYTES, too_long)
            with tarfile.open(fileobj=meter, mode="r|") as archive:
                yield _members(archive, meter, file)
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise StoreError(f"{file}: not an exported model: {one_line(error)}") from error
    except StoreError as error:
        text = str(error)
        raise StoreError(text if text.startswith(str(file)) else f"{file}: {text}") from None


def _members(archive: tarfile.TarFile, meter: Metered, file: Path) -> Iterator[tuple[str, IO[bytes], int]]:
    count = 0
    while (member := archive.next()) is not None:
        count += 1
        name = member.name.removeprefix("./")
        if count > 2 * MAX_FILES:
            raise StoreError(f"{file}: more than {MAX_FILES:,} files")
        if not member.isdir():
            stream = archive.extractfile(member) if member.isreg() else None
            if stream is None:
                raise StoreError(f"{file}: {shown(name)} is a link or a device, no file")
            meter.allowed = member.size + HEADER_BYTES
            yield name, stream, member.size
        meter.allowed = max(meter.allowed, HEADER_BYTES)
