"""Backups: one archive with the model store and whatever else is state, and a manifest with the hash of each part.

Stored models go in as the archives that `hone models import` reads. The manifest stands first, so that a reader knows
what must follow, and how much of it. `lifecycle.backup.restore` reads it.
"""

from __future__ import annotations

import datetime
import fcntl
import gzip
import hashlib
import io
import os
import re
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

from pydantic import BaseModel, ConfigDict, Field

from hone import __version__, store
from hone.artifact import FileRecord
from hone.errors import HoneError, one_line
from hone.store import archive, registry

MANIFEST = "manifest.json"
REGISTRY = "registry/"
CHUNK = 1 << 20
DATED = re.compile(r"hone-\d{8}T\d{6}Z\.tar\.gz")
"""Names that a folder of backups gets; `keep` removes nothing else."""


class Contents(BaseModel):
    """`manifest.json` of a backup.

    Attributes:
        models: digest of each stored model, by tag.
        latest: the version that `NAME:latest` means, by name.
        parts: size and sha256 of each member: `models/NAME/VERSION.tar.gz`, `files/PATH`, `registry/FILE`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    kind: Literal["backup"] = "backup"
    created: str
    hone: str
    models: dict[str, str]
    latest: dict[str, str]
    parts: dict[str, FileRecord] = Field(description="In the order in which they follow.")

    @property
    def size_bytes(self) -> int:
        return sum(record.size for record in self.parts.values())

    def summary(self) -> str:
        files = sum(not name.startswith("models/") for name in self.parts)
        return f"{len(self.models)} model(s), {files} file(s), {self.size_bytes / 1e6:,.1f} MB, made {self.created}"


def part_of(tag: str) -> str:
    """Return the name of a model's part."""
    name, _, version = tag.partition(":")
    return f"models/{name}/{version}.tar.gz"


def create(target: Path, include: Sequence[Path] = (), keep: int = 0) -> Path:
    """Write a backup of the model store and other files; it appears whole or not at all.

    Args:
        target: a `.tar.gz` file, or a folder that gets a file with the time in its name.
        include: files and folders that go in, too: keys, audit logs, recipes, reports, manifests.
        keep: of a folder's backups so many are kept, the newest; 0 keeps all.

    Raises:
        ArtifactError: a stored model is corrupt.
        HoneError: something can't be read or written, or changed while it was read.
    """
    now = datetime.datetime.now(datetime.UTC)
    file = target / f"hone-{now:%Y%m%dT%H%M%SZ}.tar.gz" if target.is_dir() else target
    if not file.name.endswith((".tar.gz", ".tgz")):
        raise HoneError(f"{file}: give a folder, or a name that ends in .tar.gz")
    if keep and not target.is_dir():
        raise HoneError(f"--keep: {target} is no folder, so there is nothing to choose from")
    sources = {**_included(include), **_registry()}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".hone-backup-", dir=file.parent) as scratch:
            models, latest = _exported(Path(scratch), sources)
            parts = {name: measured(path) for name, path in sources.items()}
            contents = Contents(
                created=now.isoformat(timespec="seconds"),
                hone=__version__,
                models=models,
                latest=latest,
                parts=parts,
            )
            partial = Path(scratch) / "backup.tar.gz"
            _write(partial, contents, sources)
            partial.replace(file)
    except OSError as error:
        raise HoneError(
            f"{error.filename or file}: {error.strerror or one_line(error)}; nothing was written"
        ) from error
    if keep:
        for old in sorted(path for path in target.iterdir() if DATED.fullmatch(path.name))[:-keep]:
            old.unlink()
    return file


def _exported(scratch: Path, sources: dict[str, Path]) -> tuple[dict[str, str], dict[str, str]]:
    """Export every stored model into a folder; return digests by tag, and what `latest` means by name."""
    models, latest = {}, {}
    for entry in store.entries():
        name = part_of(entry.tag)
        (scratch / name).parent.mkdir(parents=True, exist_ok=True)
        sources[name] = archive.export(entry, scratch / name)
        models[entry.tag] = entry.opened(verify=False).digest
        pointer = store.models_dir() / entry.name / "latest"
        if pointer.is_file():
            latest[entry.name] = pointer.read_text().strip()
    return models, latest


def _registry() -> dict[str, Path]:
    """Return the files of the registry by their names in the archive: what aliases mean, and their history."""
    files = [registry.file_of(name) for name in registry.names()] + [registry.folder() / registry.HISTORY]
    return {f"{REGISTRY}{file.name}": file for file in files if file.is_file()}


def _included(include: Sequence[Path]) -> dict[str, Path]:
    """Return files by their names in the archive: as given, or the last part of a path that leads elsewhere."""
    found: dict[str, Path] = {}
    for given in include:
        path = Path(os.path.normpath(given))
        inside = not path.is_absolute() and ".." not in path.parts
        base = path if inside else Path(path.name)
        if not path.exists():
            raise HoneError(f"--include: {path} does not exist")
        members = [path] if path.is_file() else sorted(p for p in path.rglob("*") if not p.is_dir() or p.is_symlink())
        for member in members:
            name = f"files/{(base / member.relative_to(path)).as_posix()}".removesuffix("/.")
            if member.is_symlink() or not member.is_file():
                raise HoneError(f"--include: {member} is a link or no regular file; name what it leads to")
            if found.setdefault(name, member) != member:
                raise HoneError(f"--include: {member} and {found[name]} would both be {name}")
    return found


def measured(path: Path) -> FileRecord:
    """Return size and hash; a log that others append to is taken as far as it goes now."""
    with path.open("rb") as stream:
        # Who appends to an audit log holds its lock until the line is whole.
        fcntl.flock(stream, fcntl.LOCK_SH)
        size = os.fstat(stream.fileno()).st_size
        fcntl.flock(stream, fcntl.LOCK_UN)
        digest = hashlib.sha256()
        for chunk in _chunks(stream, size):
            digest.update(chunk)
    return FileRecord(sha256=digest.hexdigest(), size=size)


def _chunks(stream: IO[bytes], size: int) -> Iterator[bytes]:
    while size and (chunk := stream.read(min(CHUNK, size))):
        size -= len(chunk)
        yield chunk


def _write(file: Path, contents: Contents, sources: dict[str, Path]) -> None:
    handle = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as raw:
        # Models are packed already; level 1 is for the rest.
        with gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
            manifest = contents.model_dump_json(indent=1).encode()
            archive.addfile(_member(MANIFEST, len(manifest)), io.BytesIO(manifest))
            for name, record in contents.parts.items():
                with sources[name].open("rb") as stream:
                    hashed = _Hashed(stream)
                    archive.addfile(_member(name, record.size), hashed)
                if hashed.digest.hexdigest() != record.sha256:
                    raise HoneError(f"{sources[name]}: changed while it was backed up; run it again")
        raw.flush()
        os.fsync(raw.fileno())


class _Hashed:
    """A stream that hashes what is read from it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data


def _member(name: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o600
    return member
