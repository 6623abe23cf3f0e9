"""The steps of an artifact: what callers give and get by them, what they need on a host, and made ready to run."""

from __future__ import annotations

from importlib.util import find_spec

from hone.artifact import MANIFEST, Artifact
from hone.errors import ArtifactError
from hone.signature import Signature
from hone.steps.base import StepError
from hone.steps.pipeline import ReadySteps, offered

PACKAGES = {"PIL": "pillow"}
"""What packages are named in an index, where that isn't the module's name."""


def offered_by(artifact: Artifact) -> Signature:
    """Return what callers of an artifact give and get: its own signature where it has no steps.

    Raises:
        ArtifactError: its steps don't fit it.
    """
    try:
        return offered(artifact.manifest.steps, artifact.signature)
    except StepError as error:
        raise ArtifactError(f"{artifact.path / MANIFEST}: steps: {error}") from None


def ready_steps(artifact: Artifact) -> ReadySteps | None:
    """Return an artifact's steps, ready to run; None where it has none.

    Code in it runs: it was opened by `hone.store.trust.open_to_run`.

    Raises:
        ArtifactError: they don't fit it, or a file of them can't be used.
        UnavailableError: this host lacks a library.
    """
    if not artifact.manifest.steps:
        return None
    try:
        return ReadySteps(artifact.manifest.steps, artifact.signature, artifact.path)
    except StepError as error:
        raise ArtifactError(f"{artifact.path / MANIFEST}: steps: {error}") from None


def code_in_steps(artifact: Artifact) -> str:
    """Return what code of its author's its steps run, in words that follow 'it', or an empty string."""
    functions = artifact.manifest.steps.functions if artifact.manifest.steps else []
    return f"runs {', '.join(step.call for step in functions)} of its own around the model" if functions else ""


def packages_of(artifact: Artifact) -> list[str]:
    """Return what an artifact's steps need to be installed, by the names of an index."""
    steps = artifact.manifest.steps
    return [PACKAGES.get(name, name) for name in steps.packages] if steps else []


def missing_here(artifact: Artifact) -> str:
    """Return why this host can't run an artifact's steps, or an empty string."""
    steps = artifact.manifest.steps
    missing = [PACKAGES.get(name, name) for name in steps.packages if find_spec(name) is None] if steps else []
    return f"its steps need {', '.join(missing)}; pip install 'hone[steps]'" if missing else ""
