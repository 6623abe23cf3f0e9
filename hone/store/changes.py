"""Entries come into the store and leave it: whole, or not at all.

They are written beside the store and renamed into it, because BentoML's own register fills an entry in place and
leaves half of one behind when it is killed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hone import runtimes
from hone.artifact import Artifact, FileRecord, Manifest, write_manifest
from hone.errors import StoreError, one_line, shown_as
from hone.files import atomic_write, hash_file
from hone.golden.rows import GoldenRows, write_rows
from hone.names import check_tag
from hone.store.entry import MODULE, Entry, entries, models_dir
from hone.store.origins import Origin, forget_origin, read_origin, record_origin
from hone.store.registry import check_removal, forget
from hone.store.rows import forget_rows

if TYPE_CHECKING:
    from bentoml._internal.models import ModelStore


def put(
    artifact: Artifact,
    name: str,
    version: str,
    golden: GoldenRows | None = None,
    beside: Mapping[str, bytes | Path] | None = None,
) -> Entry:
    """Copy an artifact that was made on this host into the store, as `add`.

    Args:
        artifact: opened.
        name, version: its tag.
        golden: rows for the file that its manifest says to hold some; None: none, or its own files hold them.
        beside: more files that its manifest names, by their places there: their content, or where they are.

    Raises:
        StoreError: the tag exists or isn't valid, or the disk is full.
        ArtifactError: a file is corrupt.
    """

    def copy(root: Path) -> None:
        for part in artifact.manifest.files:
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path / part, root / part)
        more = [write_rows(root, golden)] if golden is not None else []
        for part, source in (beside or {}).items():
            (root / part).parent.mkdir(parents=True, exist_ok=True)
            more.append(root / part)
            if isinstance(source, bytes):
                more[-1].write_bytes(source)
            else:
                shutil.copyfile(source, more[-1])
        records = {
            file.relative_to(root).as_posix(): FileRecord(sha256=hash_file(file), size=file.stat().st_size)
            for file in more
        }
        manifest = artifact.manifest
        write_manifest(root, manifest.model_copy(update={"files": {**manifest.files, **records}}))

    return add(artifact.manifest, name, version, copy, Origin(by="hone optimize", trusted=True))


def add(manifest: Manifest, name: str, version: str, fill: Callable[[Path], None], origin: Origin) -> Entry:
    """Make an entry that appears whole or not at all; it becomes `NAME:latest` when it is what NAME now means.

    Args:
        manifest: of the artifact.
        name, version: its tag.
        fill: writes the artifact's files and its manifest into a folder.
        origin: what the store remembers of where it is from.

    Raises:
        StoreError: the tag exists or isn't valid, or the disk is full.
        ArtifactError: what `fill` wrote is corrupt, or asks its runtime for what that doesn't know.
    """
    from bentoml.models import ModelContext
    from bentoml.models import create as create_model

    _free_place(name, version)
    with _partial_store() as partial, shown_as(Path(partial._path) / name / version, f"{name}:{version}"):
        with create_model(
            f"{name}:{version}",
            module=MODULE,
            labels={"variant": manifest.variant, "runtime": manifest.runtime, "precision": manifest.precision},
            metadata={"digest": manifest.digest, "run": manifest.selection.run if manifest.selection else ""},
            context=ModelContext(framework_name=manifest.runtime, framework_versions=dict(manifest.tools)),
            _model_store=partial,
        ) as model:
            fill(Path(model.path))
        return _adopt(Path(partial._path) / name / version, name, version, origin)


def _free_place(name: str, version: str) -> Path:
    """Return the folder that a new entry gets; it lies in the store, whatever the name, and isn't there yet."""
    check_tag(name, version)
    root = models_dir()
    target = root / name / version
    if target.parent.resolve() != root.resolve() / name:
        raise StoreError(f"{target.parent}: a link that leads out of the store; remove it first")
    if target.exists():
        raise StoreError(f"{name}:{version} is in the store already; entries never change")
    return target


def _adopt(source: Path, name: str, version: str, origin: Origin) -> Entry:
    """Rename a complete entry into the store; `latest` points at it when there is none, or NAME means it."""
    artifact = Artifact.open(source)
    runtimes.check_options(artifact)
    target = _free_place(name, version)
    record_origin(models_dir(), name, version, origin, source)
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)
    latest = target.parent / "latest"
    if not latest.is_file() or _meant(entries(name)).version == version:
        atomic_write(latest, version)
    return Entry(name, version, target, Artifact(target, artifact.manifest))


@contextmanager
def _partial_store() -> Iterator[ModelStore]:
    """Yield a throw-away BentoML store on the file system of the real one, so that a rename is enough."""
    from bentoml._internal.models import ModelStore

    root = models_dir()
    root.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".hone-partial-", dir=root.parent))
    try:
        yield ModelStore(partial)
    except OSError as error:
        raise StoreError(f"{root}: cannot be written: {_reason(error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _reason(error: OSError) -> str:
    """Return why in words; a copied tree (shutil.Error) brings a list of (source, target, why), all alike."""
    problems = error.args[0] if isinstance(error, shutil.Error) and error.args else None
    if isinstance(problems, list) and problems:
        return str(problems[0][-1]).partition("] ")[2].partition(":")[0] or str(problems[0][-1])
    return error.strerror or one_line(error)


def remove(entry: Entry) -> None:
    """Delete an entry; `latest` moves to the best entry of the newest remaining run.

    Raises:
        StoreError: an alias of the registry means it, and more than a proposal.
    """
    check_removal([entry])
    trash = Path(tempfile.mkdtemp(prefix=".hone-partial-", dir=models_dir().parent))
    entry.path.rename(trash / entry.version)
    shutil.rmtree(trash)
    forget_origin(models_dir(), entry.name, entry.version)
    forget_rows(entry.path)
    forget(entry)
    rest = entries(entry.name)
    latest = models_dir() / entry.name / "latest"
    if rest:
        atomic_write(latest, _meant(rest).version)
        return
    latest.unlink(missing_ok=True)
    if not any(latest.parent.iterdir()):
        latest.parent.rmdir()


@contextmanager
def replacing(entry: Entry) -> Iterator[None]:
    """Take an entry out of the store while another gets its tag; it comes back as it was when that fails."""
    root, folder = models_dir(), entry.path.parent
    origin = read_origin(root, entry.name, entry.version, entry.path)
    latest = (folder / "latest").read_text() if (folder / "latest").is_file() else None
    aside = Path(tempfile.mkdtemp(prefix=".hone-partial-", dir=root.parent))
    try:
        entry.path.rename(aside / entry.version)
        try:
            yield
        except BaseException:
            (aside / entry.version).rename(entry.path)
            if origin is not None:
                record_origin(root, entry.name, entry.version, origin, entry.path)
            if latest is not None:
                atomic_write(folder / "latest", latest)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _meant(found: Sequence[Entry]) -> Entry:
    """Return what `latest` means: the best of the newest run that has one within its budget, else the best of all."""
    return next((entry for entry in found if entry.eligible), found[0])
