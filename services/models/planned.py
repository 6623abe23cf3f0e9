"""A model that runs as it is told: the plan of HONE_PLAN in place of measurements.

A pod that measures itself, beside whatever else its node does, runs something else than the pod whose capacity was
measured. With the plan of that one it runs the same, and starts sooner.
"""

from __future__ import annotations

from collections.abc import Sequence

from hone import runtimes, store
from hone.artifact import Artifact
from hone.errors import ArtifactError, HoneError, one_line
from hone.hardware import cores
from hone.plan import VARIABLE, Plan
from hone.runtimes.base import Runtime
from hone.signature import Tensors

from ..batching.latency import LatencyModel
from ..batching.padding import Joiner
from .measuring import repeated, seconds_of
from .prepared import SPIN, Prepared, spins

WARM_UP_S = 0.05
"""For the batches of one size, after the first."""


def check_plan(plan: Plan, tags: Sequence[str]) -> None:
    """Check that a plan is for a model that is served, and that its runtime can run so.

    Args:
        plan: as given.
        tags: stored artifacts, of which the best of each name is served.

    Raises:
        HoneError: it is for something else, or can't be followed.
    """
    entries = [store.resolve(tag) for tag in tags]
    names = dict.fromkeys(entry.name for entry in entries)
    served = [store.choose([entry for entry in entries if entry.name == name]).entry for name in names]
    artifacts = {entry.tag: entry.opened(verify=False) for entry in served}
    for artifact in artifacts.values():
        if artifact.digest == plan.digest:
            _check_runtime(plan, artifact)
            return
    there = ", ".join(f"{tag} ({artifact.digest[:12]})" for tag, artifact in artifacts.items())
    raise HoneError(
        f"{VARIABLE} is for {plan.model} ({plan.digest[:12]}), but {there} is served; leave it out, or give the plan "
        "of what is served: hone bench capacity measures one"
    )


def run_as_planned(artifact: Artifact, example: Tensors, plan: Plan) -> Prepared:
    """Load an artifact as its plan says, and warm it up with batches of one row and of the most rows.

    Args:
        artifact: opened; of the plan's digest.
        example: rows that it can be tried with.
        plan: as given.

    Raises:
        HoneError: the runtime can't run so.
        ArtifactError: it loads but fails on its example rows.
    """
    _check_runtime(plan, artifact)
    if plan.spin != spins(artifact):
        artifact = artifact.with_manifest(runtime_options={**artifact.manifest.runtime_options, SPIN: plan.spin})
    runtime = runtimes.load(artifact, plan.threads)
    try:
        return Prepared(runtime, plan, _warmed(runtime, artifact, example, plan), given=True)
    except Exception as error:
        runtime.close()
        raise ArtifactError(f"{artifact.path}: loads but fails on example rows: {one_line(error)}") from error


def _check_runtime(plan: Plan, artifact: Artifact) -> None:
    runtime = runtimes.runtime_class(artifact.runtime)
    if plan.in_flight > 1 and not runtime.concurrent:
        raise HoneError(f"{VARIABLE}: in_flight is {plan.in_flight}, but {artifact.runtime} runs one batch at a time")
    if plan.inline and runtime.waits:
        raise HoneError(f"{VARIABLE}: inline is true, but {artifact.runtime} waits for a process; it runs in threads")
    if plan.spin and SPIN not in runtime.options.model_fields:
        raise HoneError(f"{VARIABLE}: spin is true, but {artifact.runtime} has no threads that spin")
    if plan.max_batch_rows > 1 and not artifact.signature.batchable:
        raise HoneError(f"{VARIABLE}: max_batch_rows is {plan.max_batch_rows}, but {plan.model} can't be batched")


def _warmed(runtime: Runtime, artifact: Artifact, example: Tensors, plan: Plan) -> LatencyModel:
    latency = LatencyModel()
    size = 1
    if artifact.signature.batchable:
        size = Joiner(artifact.signature, pad=plan.pad).bucket(repeated(example, 1)).row_size
    most = min(
        plan.max_batch_rows, max(1, plan.max_batch_cells // size) if plan.max_batch_cells else plan.max_batch_rows
    )
    for rows in dict.fromkeys((1, most)):
        latency.observe(size, rows, seconds_of(runtime, example, rows, WARM_UP_S))
    return latency


def remarks(plan: Plan) -> str:
    """Return what a log should say of a plan that was given: where it is from, and whether the host is too small."""
    wanted, there = plan.threads * plan.in_flight, cores()
    small = f"; it wants {wanted} cores a worker, this host has {there}" if wanted > there else ""
    return f"as {VARIABLE} says, measured on {plan.host.cpu}, {plan.host.cores} cores, {plan.created}{small}"
