"""What is in the store: where it lies, and its entries in the order of what they are worth."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from hone import runtimes
from hone.artifact import MANIFEST, STORE_RECORD, Artifact
from hone.errors import ArtifactError
from hone.names import is_tag_part

MODULE = "hone"
"""What BentoML's record of an entry names as the module that made it."""


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

    @property
    def undecided(self) -> bool:
        """Stored as the safest of a run that proved none."""
        selection = self.artifact.manifest.selection if self.artifact else None
        return bool(selection and selection.outcome == "undecided")


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
