"""Reading backups: every part is checked against the manifest before anything is written where it belongs."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from pydantic import ValidationError

from hone import store
from hone.artifact import FileRecord
from hone.errors import HoneError, StoreError, first_problem, one_line, shown_as
from hone.files import Metered, atomic_stream, atomic_write
from hone.names import is_tag_part, shown
from hone.store import archive, registry
from hone.store.trust import Admission, Policy

from .backup import CHUNK, MANIFEST, REGISTRY, Contents, measured, part_of

MANIFEST_BYTES = 64_000_000
FILES = "files/"
"""What the names of included files begin with in a backup."""

Targets = list[tuple[str, Path]]


@dataclass(frozen=True)
class Restored:
    """What a restore did.

    Attributes:
        written: tags and files that it wrote.
        present: those that were there already, the same.
        left_out: files that the backup holds and nobody said where to write.
        kept: files of the registry that are there already and say otherwise.
    """

    written: tuple[str, ...]
    present: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()


def verify(file: Path) -> Contents:
    """Check every part of a backup against its hash, without writing anything; return what the backup holds.

    Raises:
        HoneError: it can't be read, or a part is missing, corrupt or not listed.
    """
    with _opened(file) as (contents, parts):
        for name, stream in parts:
            _checked(file, name, contents.parts[name], stream, None)
    return contents


def restore(file: Path, *, policy: Policy | None = None, files: Path | None = None, force: bool = False) -> Restored:
    """Bring back what a backup holds. Nothing is written before every hash in it was checked.

    Args:
        file: of `create`.
        policy: says which models may come in, as for an import: a backup is an archive like any other. Default: what
            the environment says.
        files: the folder that included files are written below; None leaves them out, because what they are called
            is whoever made the backup's choice: a program that is run from that folder, for one.
        force: replace models and files that are there and differ.

    Raises:
        HoneError: the backup is corrupt, something is there already that differs from it, or a model may not come in.
    """
    root, policy = store.models_dir(), policy or Policy.from_environment()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".hone-partial-", dir=root.parent) as scratch:
            contents = _unpacked(file, Path(scratch))
            _check_registry(Path(scratch), contents)
            targets = _targets(contents, files)
            present = _present(contents, targets)
            conflicts = _conflicts(contents, targets, present)
            if conflicts and not force:
                some = ", ".join(conflicts[:5]) + (" and more" if len(conflicts) > 5 else "")
                raise HoneError(
                    f"{some}: there already, and not as in {file}; nothing was changed. --force replaces it"
                )
            new = [tag for tag in contents.models if tag not in present]
            with shown_as(Path(scratch), str(file)):
                for tag in new:
                    _admit(Path(scratch) / part_of(tag), tag, contents.models[tag], policy)
                written = _restore_models(contents, Path(scratch), new, policy)
            written += _restore_files(Path(scratch), targets, present)
            brought, kept = _restore_registry(Path(scratch), contents, force=force)
    except OSError as error:
        raise HoneError(f"{error.filename or file}: {error.strerror or one_line(error)}") from error
    left_out = [] if files is not None else [name.removeprefix(FILES) for name in contents.parts if _is_file(name)]
    return Restored((*written, *brought), tuple(sorted(present)), tuple(left_out), kept)


def _unpacked(file: Path, scratch: Path) -> Contents:
    with _opened(file) as (contents, parts):
        free = shutil.disk_usage(scratch).free
        if 2 * contents.size_bytes > free:
            needed = 2 * contents.size_bytes / 1e6
            raise HoneError(f"{file}: needs {needed:,.0f} MB, {scratch.parent} has {free / 1e6:,.0f} MB free")
        for name, stream in parts:
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            with (scratch / name).open("wb") as out:
                _checked(file, name, contents.parts[name], stream, out)
    return contents


def _present(contents: Contents, targets: Targets) -> set[str]:
    """Return the tags and files that are there already, as the backup has them."""
    found = {
        entry.tag
        for entry in store.entries()
        if entry.artifact is not None and contents.models.get(entry.tag) == entry.artifact.digest
    }
    for name, path in targets:
        if path.is_file() and not path.is_symlink() and measured(path) == contents.parts[name]:
            found.add(str(path))
    return found


def _conflicts(contents: Contents, targets: Targets, present: set[str]) -> list[str]:
    there = [entry.tag for entry in store.entries() if entry.tag in contents.models]
    there += [str(path) for _, path in targets if path.exists() or path.is_symlink()]
    for name, version in contents.latest.items():
        pointer = store.models_dir() / name / "latest"
        if pointer.is_file() and pointer.read_text().strip() != version:
            there.append(f"{name}:latest")
    return [name for name in there if name not in present]


def _is_file(name: str) -> bool:
    return name.startswith(FILES)


def _targets(contents: Contents, files: Path | None) -> Targets:
    """Return the included files by their names in the backup, and where each is written.

    Raises:
        HoneError: a link leads out of the folder, or a folder is where a file would be.
    """
    if files is None:
        return []
    targets = [(name, files / name.removeprefix(FILES)) for name in contents.parts if _is_file(name)]
    for _, path in targets:
        if not path.parent.resolve().is_relative_to(files.resolve()):
            raise HoneError(f"{path}: a link on the way leads out of {files}; remove it, or give another --files")
        if path.is_dir():
            raise HoneError(f"{path}: a folder, which the backup has as a file; give another --files")
    return targets


def _admit(part: Path, tag: str, digest: str, policy: Policy) -> None:
    """Refuse a model that may not come in, is corrupt, or is another one than the manifest says, before the first one
    is written."""
    packed = archive.verify_archive(part)
    if (f"{packed.name}:{packed.version}", packed.manifest.digest) != (tag, digest):
        raise StoreError(f"{part}: holds {packed.name}:{packed.version}, which the manifest describes otherwise")
    Admission(policy, part)(packed, archive.preview(packed, part))


def _restore_models(contents: Contents, scratch: Path, new: list[str], policy: Policy) -> list[str]:
    there = {entry.tag: entry for entry in store.entries()}
    for tag in new:
        part = scratch / part_of(tag)
        with store.replacing(there[tag]) if tag in there else nullcontext():
            archive.import_archive(part, admit=Admission(policy, part))
    for name, version in contents.latest.items():
        atomic_write(store.models_dir() / name / "latest", version)
    return list(new)


def _restore_files(scratch: Path, targets: Targets, present: set[str]) -> list[str]:
    written = []
    for name, path in targets:
        if str(path) in present:
            continue
        # Keys and logs are among them.
        with (scratch / name).open("rb") as source, atomic_stream(path, mode=0o600) as stream:
            shutil.copyfileobj(source, stream)
        written.append(str(path))
    return written


def _restore_registry(scratch: Path, contents: Contents, *, force: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Bring back what aliases mean where nothing is registered; return what was written, and what was kept instead.

    Aliases move, and the history grows, every day: what is there is newer than the backup. `force` takes the backup's
    aliases; a history that is there is never replaced.
    """
    written, kept = [], []
    for name in (part for part in contents.parts if part.startswith(REGISTRY)):
        target, content = registry.folder() / name.removeprefix(REGISTRY), (scratch / name).read_bytes()
        if target.is_file() and target.read_bytes() == content:
            continue
        if target.is_file() and (not force or target.name == registry.HISTORY):
            kept.append(name)
            continue
        atomic_write(target, content, mode=0o600 if target.name == registry.HISTORY else 0o644)
        written.append(name)
    return tuple(written), tuple(kept)


def _check_registry(scratch: Path, contents: Contents) -> None:
    """Refuse a registry that can't be read, or is another model's, before anything is written."""
    for name in (part for part in contents.parts if part.startswith(REGISTRY)):
        if name == f"{REGISTRY}{registry.HISTORY}":
            continue
        try:
            found = registry.Registry.model_validate_json((scratch / name).read_bytes())
        except ValidationError as error:
            raise HoneError(f"{name}: {first_problem(error, 'content')}") from None
        if name != f"{REGISTRY}{found.name}.json" or not is_tag_part(found.name):
            raise HoneError(f"{name}: is of {shown(found.name)}")


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Contents, Iterator[tuple[str, IO[bytes]]]]]:
    """Yield a backup's manifest, and its parts in order; whatever is not listed is refused before it is read."""
    if not file.is_file():
        raise HoneError(f"{file}: no such file")
    try:
        with gzip.open(file) as plain:
            meter = Metered(plain, 2 * MANIFEST_BYTES, HoneError("holds more than its manifest says"))
            with tarfile.open(fileobj=meter, mode="r|") as archive:
                contents = _manifest(archive)
                meter.allowed = contents.size_bytes + MANIFEST_BYTES + 4096 * len(contents.parts)
                yield contents, _parts(archive, contents)
    except (tarfile.TarError, OSError, EOFError, ValueError, zlib.error) as error:
        raise HoneError(f"{file}: not a whole backup: {one_line(error)}") from error
    except HoneError as error:
        raise HoneError(f"{file}: {str(error).removeprefix(f'{file}: ')}") from None


def _manifest(archive: tarfile.TarFile) -> Contents:
    member = archive.next()
    stream = archive.extractfile(member) if member is not None and member.isreg() else None
    if member is None or stream is None or member.name != MANIFEST or member.size > MANIFEST_BYTES:
        raise HoneError(f"not a backup: {MANIFEST} does not stand first")
    try:
        contents = Contents.model_validate_json(stream.read())
    except ValidationError as error:
        raise HoneError(f"{MANIFEST}: {first_problem(error, 'content')}") from None
    for name in contents.parts:
        parts = PurePosixPath(name).parts
        plain = name == "/".join(parts) and ".." not in parts
        if not plain or parts[0] not in ("models", "files", "registry") or len(parts) < 2:
            raise HoneError(f"{MANIFEST}: {name!r} is no part of a backup")
    wanted = {part_of(tag) for tag in contents.models}
    if wanted != {name for name in contents.parts if name.startswith("models/")}:
        raise HoneError(f"{MANIFEST}: its models and its parts don't agree")
    if not {f"{name}:{version}" for name, version in contents.latest.items()} <= contents.models.keys():
        raise HoneError(f"{MANIFEST}: 'latest' names a model that is not in it")
    return contents


def _parts(archive: tarfile.TarFile, contents: Contents) -> Iterator[tuple[str, IO[bytes]]]:
    left = dict(contents.parts)
    while (member := archive.next()) is not None:
        record = left.pop(member.name, None)
        stream = archive.extractfile(member) if member.isreg() else None
        if record is None or stream is None or member.size != record.size:
            raise HoneError(f"{member.name!r}: not as the manifest lists it")
        yield member.name, stream
    if left:
        raise HoneError(f"{next(iter(left))}: missing")


def _checked(file: Path, name: str, record: FileRecord, stream: IO[bytes], out: IO[bytes] | None) -> None:
    digest = hashlib.sha256()
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        if out is not None:
            out.write(chunk)
    if digest.hexdigest() != record.sha256:
        raise HoneError(f"{file}: {name}: corrupt, its sha256 is not the one in {MANIFEST}")
