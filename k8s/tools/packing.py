"""What can be asked of an image, and which stored artifacts go into it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hone import store
from hone.artifact import Artifact
from hone.errors import HoneError
from hone.runtimes.onnx.runtime import CPU
from hone.store.trust import Policy, open_to_run

CUDA, TENSORRT = "CUDAExecutionProvider", "TensorrtExecutionProvider"


@dataclass(frozen=True)
class Kind:
    """What an image is for.

    Attributes:
        name: also of its lock file, `image/NAME.lock`.
        base: the image it is built on.
        runtimes: artifacts of these can be in it.
        providers: of ONNX Runtime, that it has.
    """

    name: str
    base: str
    runtimes: tuple[str, ...]
    providers: tuple[str, ...] = (CPU,)

    def lacks(self, artifact: Artifact) -> str:
        """Return what an artifact needs and such an image hasn't got, or an empty string.

        A graph for an accelerator is not packed for the provider that it would fall back to: its figures are of the
        first.
        """
        if artifact.runtime not in self.runtimes:
            return artifact.runtime
        wanted = artifact.manifest.runtime_options.get("providers", [])
        if artifact.runtime == "onnx" and wanted and wanted[0] not in self.providers:
            return f"ONNX Runtime's {wanted[0].removesuffix('ExecutionProvider')} provider"
        return ""


SLIM = "docker.io/library/python:3.11-slim-bookworm"
NVIDIA = "docker.io/nvidia/cuda:13.0.2-cudnn-runtime-ubuntu24.04"
KINDS = {
    kind.name: kind
    for kind in (
        Kind("cpu", SLIM, ("onnx", "python")),
        Kind("openvino", SLIM, ("onnx", "openvino", "python")),
        Kind("litert", SLIM, ("onnx", "litert", "python")),
        Kind("cuda", NVIDIA, ("onnx", "python"), (CUDA, CPU)),
        Kind("tensorrt", NVIDIA, ("onnx", "tensorrt", "python"), (TENSORRT, CUDA, CPU)),
    )
}


@dataclass(frozen=True)
class Request:
    """What to build.

    Attributes:
        model: NAME, NAME:VARIANT or a full tag.
        kind: of `KINDS`.
        tag: of the image; default: localhost/hone/NAME:VERSION-KIND.
        base: in place of the kind's base; must have Python 3.11 or 3.12 with its venv module.
        wheels: a folder of wheels; nothing is fetched then.
        index_url: a package mirror; default: $PIP_INDEX_URL.
        ca: a file of certificates that the mirror's is checked against; default: $PIP_CERT.
        engine: docker, podman or buildah; default: the first that is installed.
        labels: more labels of the image.
        more: further models, or further versions of one.
        push: to the registry that `tag` names, once it is built.
    """

    model: str
    kind: str = "cpu"
    tag: str = ""
    base: str = ""
    wheels: Path | None = None
    index_url: str = ""
    ca: Path | None = None
    engine: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    more: tuple[str, ...] = ()
    push: bool = False


@dataclass(frozen=True)
class Packing:
    """The artifacts of an image.

    Attributes:
        served: what is loaded at the start, by reference; the first answers `/predict`.
        entries: all of them; the best of the first model stands first.
        left_out: (tag, what it needs) of those that a larger image would hold.
    """

    served: tuple[str, ...]
    entries: tuple[store.Entry, ...]
    left_out: tuple[tuple[str, str], ...]


def pack(request: Request) -> Packing:
    """Return what goes into the image: for each reference what a service would choose from, less what it can't run.

    The first reference of each name is served; further ones are there to be loaded, such as a version to go back to.

    Raises:
        StoreError: no such model.
        HoneError: the image can't hold the best of a reference, whose figures would then be another's.
        ArtifactError: a file is corrupt, or the artifact may not run.
    """
    kind = KINDS[request.kind]
    served: dict[str, str] = {}
    entries: dict[str, store.Entry] = {}
    left_out: dict[str, str] = {}
    for reference in (request.model, *request.more):
        found = store.serving_set(reference)
        lacking = {entry.tag: kind.lacks(entry.opened(verify=False)) for entry in found}
        if lacking[found[0].tag]:
            raise HoneError(_refusal(kind, found, lacking))
        left_out |= {tag: needs for tag, needs in lacking.items() if needs}
        fitting = [entry for entry in found if not lacking[entry.tag]]
        entries |= {entry.tag: entry for entry in fitting}
        best = found[0]
        served.setdefault(best.name, best.tag if store.names_version(reference) else best.name)
    policy = Policy.from_environment()
    for entry in entries.values():
        open_to_run(entry, policy)
    left_out = {tag: needs for tag, needs in left_out.items() if tag not in entries}
    return Packing(tuple(served.values()), tuple(entries.values()), tuple(left_out.items()))


def _refusal(kind: Kind, found: Sequence[store.Entry], lacking: dict[str, str]) -> str:
    best = found[0]
    kinds = [other.name for other in KINDS.values() if not other.lacks(best.opened(verify=False))]
    others = [entry.tag for entry in store.entries(best.name) if entry.artifact and not kind.lacks(entry.artifact)]
    ways = [f"build --kind {' or '.join(kinds)}"] if kinds else []
    ways += [f"name another variant, such as {others[0]}, and measure that"] if others else []
    return (
        f"{best.tag} needs {lacking[best.tag]}, which an image of kind {kind.name} hasn't got; "
        f"{', or '.join(ways) or 'no image holds it, nor is there another variant'}"
    )
