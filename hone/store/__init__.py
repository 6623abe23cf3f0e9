"""The store: artifacts in the BentoML model store, one entry an artifact.

An entry's tag is `NAME:VARIANT-RUN`: the recipe's name, the variant and the run of `hone optimize` that measured it.
Entries never change; a new run adds new ones. `NAME:latest` is the winner of the newest run.

Entries are written beside the store and renamed into it, because BentoML's own register fills an entry in place and
leaves half of one behind when it is killed.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from hone import runtimes
from hone.artifact import MANIFEST, STORE_RECORD, Artifact, Manifest, write_manifest
from hone.errors import ArtifactError, HoneError, StoreError, UnavailableError, did_you_mean, one_line, shown_as
from hone.files import atomic_write
from hone.names import check_tag, is_tag_part, shown
from hone.store.origins import Origin, forget_origin, read_origin, record_origin

if TYPE_CHECKING:
    from bentoml._internal.models import ModelStore

MODULE = "hone"
LONGEST = 100
"""Of a misspelled name: the nearest is looked for with so many of its characters."""


@dataclass(frozen=True)
class Entry:
    """One stored artifact. `error` is set, and `artifact` is None, when its manifest can't be read."""

    name: str
    version: str
    path: Path
    artifact: Artifact | None
    error: str = ""

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    def opened(self, *, verify: bool = True) -> Artifact:
        """Return the artifact with its files checked; raises ArtifactError naming the file that is wrong."""
        if self.error:
            raise ArtifactError(self.error)
        artifact = Artifact.open(self.path, verify=verify)
        runtimes.check_options(artifact)
        return artifact

    @property
    def run(self) -> str:
        selection = self.artifact.manifest.selection if self.artifact else None
        return selection.run if selection else ""

    @property
    def rank(self) -> int:
        selection = self.artifact.manifest.selection if self.artifact else None
        return selection.rank if selection else sys.maxsize

    @property
    def eligible(self) -> bool:
        selection = self.artifact.manifest.selection if self.artifact else None
        return bool(selection and selection.eligible)


@dataclass(frozen=True)
class Choice:
    """The artifact that a host serves, and why: one line an entry that was passed over."""

    entry: Entry
    reason: str
    passed_over: tuple[str, ...] = ()


def models_dir() -> Path:
    """Return the directory of the BentoML model store that is in force.

    BentoML points its store into a bento while it serves one, so it is asked when it is loaded; importing it only
    to read a path would cost the command line a second.
    """
    if "bentoml._internal.configuration.containers" in sys.modules:
        from bentoml._internal.configuration.containers import BentoMLContainer

        return Path(BentoMLContainer.model_store.get()._path)
    return Path(os.environ.get("BENTOML_HOME") or Path.home() / "bentoml").expanduser() / "models"


def entries(name: str | None = None) -> list[Entry]:
    """Return stored artifacts, newest run first and best first within a run; models of other tools are left out."""
    root = models_dir()
    names = [name] if name is not None else sorted(path.name for path in root.iterdir()) if root.is_dir() else []
    found = []
    for model in filter(is_tag_part, names):
        for path in sorted((root / model).iterdir()) if (root / model).is_dir() else []:
            if is_tag_part(path.name) and path.is_dir() and _is_ours(path):
                found.append(_read(model, path))
    found.sort(key=lambda entry: (entry.rank, entry.version))
    found.sort(key=lambda entry: entry.run, reverse=True)
    found.sort(key=lambda entry: entry.name)
    return found


def resolve(reference: str, packed: Sequence[Entry] | None = None) -> Entry:
    """Return the entry that a reference names.

    Args:
        reference: `NAME` or `NAME:latest` (the winner of the newest run), `NAME:VARIANT` (of the newest run that has
            it), `NAME:VERSION`, or a unique beginning of a version.
        packed: look among these only, in the order of `entries`; a bento holds no more than it was built with.

    Raises:
        StoreError: nothing, or more than one thing, answers to the reference.
    """
    name, _, version = reference.partition(":")
    candidates = entries(name) if packed is None else [entry for entry in packed if entry.name == name]
    if not candidates:
        if packed is not None:
            raise StoreError(f"no model '{name}' is packed here; there is {_tags(packed)}")
        known = {entry.name for entry in entries()}
        hint = did_you_mean(name[:LONGEST], known) or "; run hone optimize first"
        raise StoreError(f"no model {shown(name)} in {models_dir()}{hint}")
    if version in ("", "latest"):
        return _newest_winner(name, candidates)
    for entry in candidates:
        if entry.version == version or (entry.artifact and entry.artifact.manifest.variant == version):
            return entry
    matches = [entry for entry in candidates if entry.version.startswith(version)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        some = ", ".join(entry.version for entry in matches[:3])
        more = f" and {len(matches) - 3} more" if len(matches) > 3 else ""
        raise StoreError(f"{shown(reference)} is ambiguous: {some}{more}")
    if packed is not None:
        raise StoreError(f"no version {shown(version)} of '{name}' is packed here; there is {_tags(packed)}")
    known = {entry.version for entry in candidates}
    raise StoreError(f"no version {shown(version)} of '{name}'{did_you_mean(version[:LONGEST], known)}")


def names_version(reference: str) -> bool:
    """Return whether a reference means one artifact, whatever run is the newest."""
    return reference.partition(":")[2] not in ("", "latest")


def _tags(found: Sequence[Entry]) -> str:
    return ", ".join(entry.tag for entry in found) or "nothing"


def _newest_winner(name: str, candidates: list[Entry]) -> Entry:
    for entry in candidates:
        if entry.eligible:
            return entry
    raise StoreError(f"no stored variant of '{name}' met its budget; name one explicitly: {candidates[0].tag}")


def serving_set(reference: str, packed: Sequence[Entry] | None = None) -> list[Entry]:
    """Return the artifacts that a host may have to choose from, best first.

    A NAME stands for those of the newest run that met the budget, down to the first that needs no special hardware,
    which every host can run; a reference with a version stands for that one alone. `packed` as in `resolve`.

    Raises:
        StoreError: as `resolve`.
    """
    winner = resolve(reference, packed)
    if names_version(reference):
        return [winner]
    name = winner.name
    chosen = []
    for entry in entries(name) if packed is None else packed:
        if entry.name != name or entry.run != winner.run or not entry.eligible or entry.artifact is None:
            continue
        chosen.append(entry)
        if is_portable(entry.artifact):
            break
    return chosen


def is_portable(artifact: Artifact) -> bool:
    """True when any host with ONNX Runtime can run the artifact."""
    return artifact.runtime == "onnx" and not artifact.manifest.requires


def choose(candidates: list[Entry]) -> Choice:
    """Return the best entry that this host can run, and why the better ones were passed over.

    Raises:
        StoreError: none can be run here; the message says why for each.
    """
    passed_over: list[str] = []
    for entry in candidates:
        problem = host_problem(entry)
        if problem:
            passed_over.append(f"{entry.tag}: {problem}")
            continue
        place = "the winner of its run" if entry.rank == 0 else f"rank {entry.rank + 1} of its run"
        if not entry.eligible:
            return Choice(entry, "named explicitly; it missed its budget", tuple(passed_over))
        if len(candidates) == 1:
            return Choice(entry, f"{place}, the only candidate")
        return Choice(entry, f"{place}, the best that this host can run", tuple(passed_over))
    raise StoreError("no stored variant can run on this host: " + "; ".join(passed_over))


def host_problem(entry: Entry) -> str:
    """Return why this host can't run an entry, or an empty string."""
    if entry.artifact is None:
        return entry.error
    try:
        runtime = runtimes.runtime_class(entry.artifact.runtime)
        runtime.require()
    except UnavailableError as error:
        return error.reason
    except HoneError as error:
        return str(error)
    return runtime.check_host(entry.artifact)


def put(artifact: Artifact, name: str, version: str) -> Entry:
    """Copy an artifact that was made on this host into the store, as `add`.

    Raises:
        StoreError: the tag exists or isn't valid, or the disk is full.
        ArtifactError: a file is corrupt.
    """

    def copy(root: Path) -> None:
        for file in artifact.manifest.files:
            (root / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(artifact.path / file, root / file)
        write_manifest(root, artifact.manifest)

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
    """Delete an entry; `latest` moves to the best entry of the newest remaining run."""
    trash = Path(tempfile.mkdtemp(prefix=".hone-partial-", dir=models_dir().parent))
    entry.path.rename(trash / entry.version)
    shutil.rmtree(trash)
    forget_origin(models_dir(), entry.name, entry.version)
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


def _is_ours(path: Path) -> bool:
    if (path / MANIFEST).exists():
        return True
    try:
        return (yaml.safe_load((path / STORE_RECORD).read_text()) or {}).get("module") == MODULE
    except (OSError, yaml.YAMLError):
        return False


def _read(name: str, path: Path) -> Entry:
    if path.resolve() != models_dir().resolve() / name / path.name:
        return Entry(name, path.name, path, None, f"{path}: a link that leads out of the store")
    try:
        return Entry(name, path.name, path, Artifact.open(path, verify=False))
    except ArtifactError as error:
        return Entry(name, path.name, path, None, str(error))
