"""Artifacts: a directory of files and an `artifact.json` that says what they are and proves that they are whole."""

from __future__ import annotations

import datetime
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hone.errors import ArtifactError, first_problem
from hone.files import atomic_write, hash_file
from hone.golden.record import Golden
from hone.names import TAG_PART, shown
from hone.records import Verdict
from hone.signature import Signature
from hone.steps.record import Steps

MANIFEST = "artifact.json"
EXAMPLE = "example.json"
"""A few rows beside a model, for the service's documentation: real ones, unless the recipe lets none be copied."""
SIGNATURE = "signature.json"
"""Who vouches for a stored artifact, and for its name and version; see `hone.store.signing`."""
SCHEMA_VERSION = 1
PLAIN = r"^[\w.+-]*$"
"""Words of a manifest that are shown to people and used in labels."""


class FileRecord(BaseModel):
    """Size in bytes and sha256 of one file of an artifact."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class PassRecord(BaseModel):
    """One step of an artifact's lineage: the pass, its options, the digest it started from, and what it reported."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    options: dict[str, Any] = Field(default_factory=dict)
    parent: str | None = None
    seconds: float = 0.0
    details: dict[str, Any] = Field(default_factory=dict)


class DataRecord(BaseModel):
    """Rows that an artifact was made or judged with: where they are from, and what they are told again by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: Literal["calibration", "evaluation", "training"]
    source: str = Field(description="As the recipe names it.")
    rows: int | None = Field(None, description="None: a function of the user's draws them itself.")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$", description="Of the rows; of training, of the code that trains.")


class Latency(BaseModel):
    """Latency of one call in milliseconds, and the throughput that it amounts to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    batch: int
    threads: int
    p50: float = Field(description="The median of the rounds' medians: what variants are ranked by.")
    p50_low: float | None = Field(None, description="Bounds of p50 at 95 % confidence, from the rounds.")
    p50_high: float | None = None
    p95: float
    p99: float
    mean: float
    rows_per_s: float = Field(description="batch / p50.")
    calls: int
    joules_per_1000_rows: float | None = Field(None, description="None where the host doesn't tell its energy.")
    rounds: tuple[float, ...] = Field((), description="The median of each round; variants took turns in each.")


class Quality(BaseModel):
    """What a variant computes, compared with its source on the evaluation set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    metric: str
    higher_is_better: bool = True
    value: float
    source: float = Field(description="The same metric of the source model.")
    drop: float = Field(description="How much worse than the source, in the metric's unit; negative when better.")
    max_difference: float = Field(description="Largest absolute difference of any output value.")
    mean_difference: float
    rows: int


class Measurements(BaseModel):
    """Everything that was measured of an artifact on one host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    quality: Quality
    latency: tuple[Latency, ...]
    peak_rss_mb: float = Field(description="Peak resident memory of a fresh process that loads and runs it, MiB.")
    load_ms: float
    size_mb: float = Field(description="Size of all files, MB (10^6 bytes).")
    host: dict[str, Any]

    def at(self, batch: int, threads: int) -> Latency | None:
        return next((one for one in self.latency if (one.batch, one.threads) == (batch, threads)), None)


class Selection(BaseModel):
    """Where an artifact stands among the variants of its run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str = Field(pattern=PLAIN, max_length=100)
    rank: int = Field(description="0 is the winner; larger is slower (or larger, by the recipe's objective).")
    objective: str = Field("", pattern=PLAIN, max_length=20, description="That variants were ranked by.")
    eligible: bool = Field(description="True when it is proven to meet the budget.")
    verdict: Verdict | None = Field(None, description="On all limits of the budget; null in older artifacts.")
    loss_upper: float | None = Field(None, description="Its loss against the source is at most this.")
    confidence: float | None = Field(None, description="Of that bound, and of the verdict.")
    reason: str = ""
    batch: int | None = Field(None, description="The budget's conditions: where variants were ranked.")
    threads: int | None = None

    @property
    def outcome(self) -> Verdict:
        """The verdict; of an older artifact what `eligible` tells of it."""
        return self.verdict or ("met" if self.eligible else "missed")


class Manifest(BaseModel):
    """The content of `artifact.json`, version 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str = Field(pattern=TAG_PART, description="The model's name, from the recipe.")
    variant: str = Field("", pattern=PLAIN, max_length=100)
    runtime: str = Field(pattern=PLAIN, description="The runtime that loads it, by the name it is registered under.")
    precision: str = Field(pattern=PLAIN, description="fp32, fp16, bf16, int8, int4, …")
    entry: str = Field(description="The file that the runtime opens.")
    signature: Signature
    runtime_options: dict[str, Any] = Field(default_factory=dict)
    requires: dict[str, str] = Field(default_factory=dict, description="Hardware it needs, e.g. {'gpu': 'sm_90'}.")
    files: dict[str, FileRecord] = Field(default_factory=dict)
    lineage: tuple[PassRecord, ...] = ()
    tools: dict[str, str] = Field(default_factory=dict)
    created: str = ""
    measurements: Measurements | None = None
    selection: Selection | None = None
    golden: Golden | None = Field(None, description="Rows with the proof's answers; None: made before there were any.")
    data: tuple[DataRecord, ...] = Field((), description="What it was calibrated, trained and judged with.")
    drift: str | None = Field(None, description="Its file of what the evaluation rows look like, column by column.")
    steps: Steps | None = Field(None, description="From what callers have to its tensors, and on to what they want.")

    @property
    def digest(self) -> str:
        """sha256 over everything that decides what the artifact computes; measurements and dates are left out, and
        the golden rows and the reference of drift, which only say what it should, and of what."""
        fields = {"runtime", "precision", "entry", "signature", "runtime_options", "files"}
        content = self.model_dump(mode="json", include=fields | ({"steps"} if self.steps else set()))
        for file in (self.golden.file if self.golden else None, self.drift):
            content["files"].pop(file, None)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def size_bytes(self) -> int:
        return sum(record.size for record in self.files.values())


@dataclass(frozen=True)
class Artifact:
    """An artifact on disk."""

    path: Path
    manifest: Manifest

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def entry(self) -> Path:
        return self.path / self.manifest.entry

    @property
    def runtime(self) -> str:
        return self.manifest.runtime

    @property
    def signature(self) -> Signature:
        return self.manifest.signature

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> Artifact:
        """Read an artifact and, unless told otherwise, check the hash of each of its files.

        Raises:
            ArtifactError: naming the file that is missing, corrupt or not listed.
        """
        manifest_path = path / MANIFEST
        try:
            manifest = parse_manifest(manifest_path.read_bytes(), manifest_path)
        except FileNotFoundError:
            raise ArtifactError(f"{path}: not an artifact, {MANIFEST} is missing") from None
        except OSError as error:
            raise ArtifactError(f"{manifest_path}: cannot be read: {error.strerror or error}") from None
        artifact = cls(path, manifest)
        if verify:
            artifact.verify()
        return artifact

    def verify(self) -> None:
        """Compare every file with the manifest.

        Raises:
            ArtifactError: naming the first file that is missing, of another size or hash, a link, or not listed.
        """
        for file in self.path.rglob("*"):
            if file.is_symlink():
                raise ArtifactError(f"{file}: a symbolic link; an artifact holds its files itself")
        for name, record in self.manifest.files.items():
            file = self.path / name
            if not file.is_file():
                raise ArtifactError(f"{file}: missing; {MANIFEST} lists it")
            size = file.stat().st_size
            if size != record.size:
                raise ArtifactError(f"{file}: corrupt, {size} bytes instead of {record.size}")
            if hash_file(file) != record.sha256:
                raise ArtifactError(f"{file}: corrupt, its sha256 is not the one in {MANIFEST}")
        for file in files_of(self.path):
            name = file.relative_to(self.path).as_posix()
            if name not in self.manifest.files:
                raise ArtifactError(f"{file}: not listed in {MANIFEST}; it was added after the artifact was made")

    def with_manifest(self, **changes: Any) -> Artifact:
        """Return this artifact with changed manifest fields, without writing them."""
        return Artifact(self.path, self.manifest.model_copy(update=changes))


def parse_manifest(content: bytes, where: Path) -> Manifest:
    """Return the manifest in the content of an `artifact.json`.

    Args:
        content: may come from anywhere; nothing in it is followed before it is checked.
        where: the file, for messages.

    Raises:
        ArtifactError: naming the field that is wrong.
    """
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise ArtifactError(f"{where}: {first_problem(error, 'content')}") from None
    if manifest.schema_version != SCHEMA_VERSION:
        raise ArtifactError(f"{where}: schema version {manifest.schema_version}, this Hone reads {SCHEMA_VERSION}")
    _check_names(manifest, where)
    return manifest


STORE_RECORD = "model.yaml"
"""BentoML's record of a stored model, beside the artifact's own files."""
_FOREIGN = {MANIFEST, STORE_RECORD, SIGNATURE}


def _check_names(manifest: Manifest, where: Path) -> None:
    """Every file must lie in the artifact's folder, and what the runtime opens must be one of them."""
    for name in manifest.files:
        parts = name.split("/")
        if "\\" in name or not name.isprintable() or any(part in ("", ".", "..") for part in parts) or ":" in name:
            raise ArtifactError(f"{where}: files: {shown(name)} lies outside the artifact, or is no plain path")
        if name in _FOREIGN:
            raise ArtifactError(f"{where}: files: '{name}' is not one of an artifact's own files")
    if manifest.entry not in manifest.files:
        raise ArtifactError(f"{where}: entry: {shown(manifest.entry)} is not one of the files that are listed")
    others = {"drift": [manifest.drift] if manifest.drift else []}
    others |= {"golden.file": [manifest.golden.file] if manifest.golden else []}
    others |= {"steps": [*manifest.steps.files] if manifest.steps else []}
    for field, names in others.items():
        for name in {*names} - ({*manifest.files} - {manifest.entry}):
            raise ArtifactError(f"{where}: {field}: {shown(name)} is not one of its other files")


def files_of(path: Path) -> list[Path]:
    """Return the files of an artifact directory that its manifest must list, sorted."""
    return sorted(
        file for file in path.rglob("*") if file.is_file() and file.relative_to(path).as_posix() not in _FOREIGN
    )


def seal(path: Path, manifest: Manifest) -> Artifact:
    """Hash every file in a directory and write its `artifact.json`: from here on it is an artifact."""
    files = {
        file.relative_to(path).as_posix(): FileRecord(sha256=hash_file(file), size=file.stat().st_size)
        for file in files_of(path)
    }
    if manifest.entry not in files:
        raise ArtifactError(f"{path}: the entry file '{manifest.entry}' was not written")
    made = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_manifest(path, sealed := manifest.model_copy(update={"files": files, "created": made}))
    return Artifact(path, sealed)


def write_manifest(path: Path, manifest: Manifest) -> None:
    atomic_write(path / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
