"""What the V2 protocol tells about the server and its models, over HTTP and over gRPC."""

from __future__ import annotations

from typing import Any

from hone.signature import BATCH, TensorSpec

from ..protocols.v2 import DATATYPES
from .edge import Edge
from .hub import Hub
from .served import ServedModel

EXTENSIONS = ["binary_tensor_data", "parameters", "model_repository", "model_configuration", "statistics"]


def model_metadata(served: ServedModel, versions: list[str]) -> dict[str, Any]:
    """Return a model's V2 metadata; -1 stands for a dynamic axis."""
    artifact = served.loaded.artifact
    return {
        "name": served.entry.name,
        "versions": versions,
        "platform": f"{artifact.runtime}_{artifact.manifest.precision}",
        "inputs": [_tensor(spec) for spec in served.offered.inputs],
        "outputs": [_tensor(spec) for spec in served.offered.outputs],
    }


def how_it_runs(served: ServedModel) -> dict[str, Any]:
    """Return a model's plan, as HONE_PLAN takes it, and whether it was given (`pinned`) or measured at the start."""
    prepared = served.loaded.prepared
    return {"plan": prepared.plan.model_dump(mode="json"), "pinned": prepared.given}


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    shape = [axis if isinstance(axis, int) else -1 for axis in spec.shape]
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": shape}


def model_config(served: ServedModel) -> dict[str, Any]:
    """Return what Triton's clients read of a model's configuration; shapes are those of a row."""
    artifact, plan = served.loaded.artifact, served.loaded.plan

    def describe(spec: TensorSpec) -> dict[str, Any]:
        dims = [axis if isinstance(axis, int) else -1 for axis in spec.shape]
        data_type = f"TYPE_{DATATYPES[spec.dtype].replace('BYTES', 'STRING')}"
        return {"name": spec.name, "data_type": data_type, "dims": dims[1:] if spec.shape[:1] == (BATCH,) else dims}

    return {
        "name": served.entry.name,
        "platform": artifact.runtime,
        "backend": artifact.runtime,
        "max_batch_size": plan.max_batch_rows if artifact.signature.batchable else 0,
        "input": [describe(spec) for spec in served.offered.inputs],
        "output": [describe(spec) for spec in served.offered.outputs],
        "instance_group": [{"count": plan.in_flight, "kind": "KIND_CPU"}],
        "dynamic_batching": {"preferred_batch_size": [plan.max_batch_rows]},
    }


def model_statistics(hub: Hub, edge: Edge, name: str = "", version: str = "") -> list[dict[str, Any]]:
    """Return what models have done in all workers: all models, all versions of one, or one version.

    A version is named as it was asked for; where all are asked for, by its number: Triton's versions are numbers,
    and its clients read these as such.

    Raises:
        NotFoundError: it isn't loaded.
    """
    chosen = [hub.get(name, version)] if version else hub.models()
    if name and not version:
        hub.get(name)
    hub.flush()
    return [
        {"name": served.entry.name, "version": version or served.number, "tag": served.tag}
        | edge.statistics.total(served.tag)
        for served in chosen
        if name in ("", served.entry.name)
    ]
