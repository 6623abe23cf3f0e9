"""A model's runtime, warm, with the plan that it is run by."""

from __future__ import annotations

from dataclasses import dataclass

from hone.artifact import Artifact
from hone.plan import Plan
from hone.runtimes.base import Runtime

from ..batching.latency import LatencyModel

SPIN = "spin"
"""The runtime option of that name."""


@dataclass(frozen=True)
class Prepared:
    """A runtime that is warm, and how to run it.

    Attributes:
        runtime: loaded with the plan's threads.
        plan: as measured, or as given.
        latency: has seen some batches of it.
        given: the plan was given, not measured here.
    """

    runtime: Runtime
    plan: Plan
    latency: LatencyModel
    given: bool = False


def spins(artifact: Artifact) -> bool:
    """Return whether an artifact lets its runtime's threads wait spinning."""
    return bool(artifact.manifest.runtime_options.get(SPIN, False))
