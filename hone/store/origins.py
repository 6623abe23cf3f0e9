"""Where stored artifacts are from: made on this host, or imported, and what was decided about the code in them.

Kept beside the store, not in the artifact: what comes with an archive can't say of itself that it was made here.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from hone.artifact import MANIFEST
from hone.files import atomic_write, hash_file

FOLDER = "hone-origins"


class Origin(BaseModel):
    """How an artifact came into the store.

    Attributes:
        by: the command that put it there.
        trusted: code in it may run here: it was made on this host, or was let in when it was imported.
        signer: whose signature was checked when it was imported; the name of the key's file.
        artifact: sha256 of its `artifact.json`; an entry with another one isn't the one that this is about.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    by: str
    trusted: bool = False
    signer: str = ""
    artifact: str = ""


def record_origin(models: Path, name: str, version: str, origin: Origin, source: Path) -> None:
    """Remember where the artifact in the folder `source` is from, which gets the tag `name:version`."""
    sealed = origin.model_copy(update={"artifact": hash_file(source / MANIFEST)})
    atomic_write(_file(models, name, version), sealed.model_dump_json(indent=2) + "\n")


def read_origin(models: Path, name: str, version: str, path: Path) -> Origin | None:
    """Return where a stored artifact is from; None when that isn't known, or is about other content.

    In a bento, the models are part of it, as its code is: who runs the bento trusts both.
    """
    if (models.resolve().parent / "bento.yaml").is_file():
        return Origin(by="bentoml build", trusted=True)
    try:
        origin = Origin.model_validate_json(_file(models, name, version).read_bytes())
        return origin if origin.artifact == hash_file(path / MANIFEST) else None
    except (OSError, ValidationError):
        return None


def forget_origin(models: Path, name: str, version: str) -> None:
    file = _file(models, name, version)
    file.unlink(missing_ok=True)
    if file.parent.is_dir() and not any(file.parent.iterdir()):
        file.parent.rmdir()


def _file(models: Path, name: str, version: str) -> Path:
    return models.resolve().parent / FOLDER / name / f"{version}.json"
