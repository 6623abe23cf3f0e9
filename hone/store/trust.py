"""What may come into the store and run: whose artifacts, and which of them may bring code.

Most artifacts are graphs and weights, and a runtime that computes them runs nothing of their author's. Some are
programs: Python of the user's own, or a TensorRT engine. Those run when they were made on this host, when somebody who
is trusted signed them, or when whoever imports or serves them says so.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hone import runtimes
from hone.artifact import MANIFEST, SIGNATURE, Artifact
from hone.errors import ArtifactError, HoneError
from hone.store.entry import Entry, models_dir
from hone.store.keys import Keys
from hone.store.origins import Origin, read_origin
from hone.store.signing import Standing, standing, standing_of

if TYPE_CHECKING:
    from hone.store.archive import Contents


class TrustError(ArtifactError):
    """An artifact that may not come in, or not run here; the message says why and what would let it."""


@dataclass(frozen=True)
class Policy:
    """What is trusted.

    Attributes:
        code: artifacts may bring code, wherever they are from.
        keys: of those whose artifacts may; when there are any, unsigned artifacts are refused altogether.
    """

    code: bool = False
    keys: Keys = field(default_factory=Keys)

    @classmethod
    def of(cls, *, code: bool, keys: str) -> Policy:
        return cls(code, Keys.read(keys))

    @classmethod
    def from_environment(cls, *, code: bool = False, environment: Mapping[str, str] = os.environ) -> Policy:
        """As a service reads it: HONE_TRUST_CODE and HONE_TRUSTED_KEYS; raises HoneError when the keys can't be."""
        switch = environment.get("HONE_TRUST_CODE", "").strip().lower() in ("1", "true")
        return cls.of(code=code or switch, keys=environment.get("HONE_TRUSTED_KEYS", "").strip())


def open_to_run(entry: Entry, policy: Policy) -> Artifact:
    """Return an entry's artifact with its files checked, to be loaded and run.

    Raises:
        TrustError: it may not run here.
        ArtifactError: it is corrupt.
    """
    artifact = entry.opened()
    problem = refusal(entry, policy)
    if problem:
        raise TrustError(f"{entry.tag}: {problem}")
    return artifact


def refusal(entry: Entry, policy: Policy) -> str:
    """Return why an entry may not run here, or an empty string; its files' hashes are not looked at."""
    if entry.artifact is None:
        return entry.error
    try:
        worth = standing(entry.path, entry.name, entry.version, policy.keys)
        return _refusal(entry.artifact, worth, policy, trusted=is_trusted_here(entry))
    except HoneError as error:
        return str(error)


def is_trusted_here(entry: Entry) -> bool:
    """True when the artifact was made on this host, or code in it was let in when it was imported: by a trusted
    signature, or on the word of who imported it."""
    origin = read_origin(models_dir(), entry.name, entry.version, entry.path)
    return origin is not None and origin.trusted


@dataclass(frozen=True)
class Admission:
    """Decides which archives may come in, for `hone.store.archive.import_archive`."""

    policy: Policy
    file: Path

    def standing(self, contents: Contents) -> Standing:
        """Return what the signature in an archive is worth."""
        manifest = hashlib.sha256(contents.records[MANIFEST]).hexdigest()
        signature = contents.records.get(SIGNATURE)
        return standing_of(signature, manifest, contents.name, contents.version, self.policy.keys)

    def __call__(self, contents: Contents, artifact: Artifact) -> Origin:
        """Return what the store remembers of the artifact; raises TrustError when it may not come in."""
        worth = self.standing(contents)
        problem = _refusal(artifact, worth, self.policy, trusted=False)
        if problem:
            raise TrustError(f"{self.file}: {contents.name}:{contents.version}: {problem}")
        signer = worth.signer if worth.state == "signed" else ""
        return Origin(by="hone models import", trusted=self.policy.code or bool(signer), signer=signer)


def _refusal(artifact: Artifact, worth: Standing, policy: Policy, *, trusted: bool) -> str:
    if worth.state == "broken":
        return f"{worth.describe()}; get it anew from who signed it, or remove {SIGNATURE} to take it as unsigned"
    if policy.keys and worth.state != "signed":
        return f"{worth.describe()}; only what {policy.keys.describe()} signed is let in here (HONE_TRUSTED_KEYS)"
    code = runtimes.code_in(artifact)
    if not code or policy.code or trusted or worth.state == "signed":
        return ""
    return (
        f"it {code}, and it was not made on this host; if you trust who made it, say --trust-code (HONE_TRUST_CODE=1), "
        "or have it signed and give the key"
    )
