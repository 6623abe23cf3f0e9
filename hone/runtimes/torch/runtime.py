"""PyTorch in eager mode: the baseline of torch models, never part of a serving image."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from hone.artifact import MANIFEST, Artifact
from hone.cache import check_own, run_folder
from hone.errors import ArtifactError, one_line
from hone.runtimes.base import BASELINE, Availability, Runtime, UserCode, missing, name_outputs, register
from hone.runtimes.parts import run_in_parts
from hone.runtimes.torch import huggingface
from hone.runtimes.torch.calls import Calling, calling, named_tensors, placeholders
from hone.runtimes.torch.profiling import profile
from hone.runtimes.trace import Trace
from hone.signature import Signature
from hone.userload import call, load_function

if TYPE_CHECKING:
    import torch


class Options(UserCode):
    """Whether an exported program may hold pickles: the recipe said so; whether torch compiles the module, or has
    compiled it into a library that is in the file, which sources' are not."""

    trust_pickle: bool = False
    compiled: Literal["float32", "bfloat16"] | None = None
    packaged: bool = False


@register("torch")
class TorchRuntime(Runtime):
    """An `nn.Module`: a class and its weights, an exported program (`.pt2`), or a Hugging Face folder.

    `runtime_options` of the artifact: `compiled`, to compile it with inductor and compute in float32 or bfloat16;
    `packaged`: the file is AOTInductor's, with a library for this processor, and takes tensors in the signature's
    order.
    """

    module = "torch"
    baseline = True
    options = Options

    @classmethod
    def code_in(cls, artifact: Artifact) -> str:
        options = Options.model_validate(artifact.manifest.runtime_options)
        if options.loader:
            return f"calls Python code, {options.loader} in {options.root}"
        if artifact.entry.name == huggingface.CONFIG:
            return ""
        return "is a torch program, which torch says to load from trusted sources only"

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        options = Options.model_validate(artifact.manifest.runtime_options)
        self._compiled = options.compiled
        if self._compiled and artifact.entry.suffix == ".pt2" and find_spec("torchao"):
            import_module("torchao.quantization.pt2e")  # knows the operators of quantized programs
        self._signature, names = artifact.signature, artifact.signature.input_names
        if options.packaged:
            self._module, self._rows = _load_package(artifact.entry), None
            self._calling = Calling(tuple(names), "positions")
        else:
            self._module = load_module(artifact)
            self._calling = calling(self._module, names)
            self._rows = fixed_rows(self._module, artifact.signature)
        self._arithmetic: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self._compiled:
            # For each shape that it meets, with its weights as constants: torch's documentation of inductor on CPUs.
            compiled: Any = torch.compile(self._module, dynamic=False, options={"freezing": True})
            self._module = compiled
        if self._compiled == "bfloat16":
            self._arithmetic = torch.autocast("cpu", torch.bfloat16)

    @classmethod
    def availability(cls) -> Availability:
        if absent := missing("torch", torch="torch"):
            return absent
        return Availability(True, version=version("torch"), detail=BASELINE)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._rows is None:
            return name_outputs(self._forward(inputs), self._signature)
        return name_outputs(run_in_parts(self._forward, inputs, self._rows), self._signature)

    def _forward(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        import torch

        with torch.inference_mode(), self._arithmetic:
            result = self._calling.call(self._module, {name: torch.from_numpy(inputs[name]) for name in inputs})
        return {
            name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
            for name, tensor in named_tensors(result).items()
        }

    def profile(self, inputs: Mapping[str, np.ndarray], runs: int, folder: Path) -> Trace:
        """With torch's own profiler; an operator has the time that those it calls don't have."""
        return profile(lambda: self.run(inputs), runs, folder)

    def describe(self) -> str:
        import torch

        return f"PyTorch {torch.__version__}, {'inductor' if self._compiled else 'eager'}, CPU"


def _load_package(file: Path) -> Any:
    """Return what AOTInductor compiled; its library runs in this process.

    Raises:
        ArtifactError: it can't be loaded here.
    """
    from torch._inductor import aoti_load_package

    try:
        return aoti_load_package(str(file))
    except Exception as error:
        raise ArtifactError(f"{file}: not a package of AOTInductor that loads here: {one_line(error)}") from error


def load_module(artifact: Artifact) -> torch.nn.Module:
    """Return the module of a torch artifact, in evaluation mode.

    Raises:
        ArtifactError: the files don't load.
        RecipeError: the user's loader fails.
    """
    import torch
    from safetensors.torch import load_file

    if artifact.entry.name == huggingface.CONFIG:
        return huggingface.load_folder(artifact.path)
    if artifact.entry.suffix == ".pt2":
        trusted = Options.model_validate(artifact.manifest.runtime_options).trust_pickle
        return load_program(artifact.entry, trust_pickle=trusted).module()
    options = artifact.manifest.runtime_options
    if not options.get("loader"):
        raise ArtifactError(
            f"{artifact.path / MANIFEST}: runtime_options.loader: is required for {artifact.entry.name}"
        )
    reference, root = options["loader"], Path(options["root"])
    loader = load_function(reference, root, "source.loader")
    module, weights = kept_module(reference, root) or (call(loader, reference, "source.loader"), "")
    if not isinstance(module, torch.nn.Module):
        raise ArtifactError(f"source.loader: {reference} returned {type(module).__name__}, not an nn.Module")
    if weights == artifact.manifest.files[artifact.manifest.entry].sha256:
        return module.eval()
    try:
        module.load_state_dict(load_file(artifact.entry))
    except Exception as error:
        raise ArtifactError(f"{artifact.entry}: weights don't fit {reference}: {one_line(error)}") from error
    return module.eval()


def keep_module(module: torch.nn.Module, reference: str, root: Path, weights: str) -> str:
    """Keep what a loader gave for the other processes of this run, so that it isn't called again: it may train.

    The file is a pickle, made and read by one run in a folder that only its user may read.

    Args:
        module: with its weights.
        reference: the loader, `module:function`.
        root: the folder that its module is looked up in.
        weights: sha256 of the weights' file.

    Returns:
        Why it couldn't be kept, or an empty string.
    """
    import cloudpickle
    import torch

    folder = run_folder()
    if folder is None:
        return ""
    file = _kept_file(folder, reference, root)
    try:
        torch.save((module, weights), file, pickle_module=cloudpickle)
        kept_module(reference, root)
    except Exception as error:  # noqa: BLE001 - a module may refuse to be pickled in any way it likes
        file.unlink(missing_ok=True)
        return f"{type(module).__name__} can't be pickled ({type(error).__name__}: {one_line(error)})"
    return ""


def kept_module(reference: str, root: Path) -> tuple[torch.nn.Module, str] | None:
    """Return the module that this run's loader gave, and the sha256 of its weights' file; None when it wasn't kept."""
    import torch

    folder = run_folder()
    if folder is None or not (file := _kept_file(folder, reference, root)).exists():
        return None
    kept = torch.load(check_own(file), weights_only=False, map_location="cpu")  # of this run  # nosec B614
    module, weights = kept
    return module, weights


def _kept_file(folder: Path, reference: str, root: Path) -> Path:
    name = hashlib.sha256(f"{root}:{reference}".encode()).hexdigest()[:16]
    return folder / f"module-{name}.pt"


def load_trainable(artifact: Artifact) -> torch.nn.Module:
    """Return the module of a torch artifact, for a hook that trains it; raises as `load_module`.

    An exported program is trained as it was traced, in evaluation mode: dropout is off and the statistics of batch
    normalization stay. Its `train()` and `eval()` would raise; here they do nothing.
    """
    module = load_module(artifact)
    if artifact.entry.suffix == ".pt2":
        for name in ("train", "eval"):
            setattr(module, name, lambda *_: module)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    return module


def load_program(file: Path, *, trust_pickle: bool = False) -> torch.export.ExportedProgram:
    """Return an exported program.

    Args:
        file: a .pt2 file.
        trust_pickle: skip the check for what could run code.

    Raises:
        ArtifactError: the file can't be read, or could run code.
    """
    import torch

    from hone.formats.pt2 import check_program

    if not trust_pickle:
        check_program(file)
    try:
        return torch.export.load(file)
    except Exception as error:
        raise ArtifactError(f"{file}: not a readable .pt2 exported program: {one_line(error)}") from error


def fixed_rows(module: torch.nn.Module, signature: Signature) -> int | None:
    """Return the rows that an exported program takes at a time when it was exported for a fixed number of them.

    The signature calls that axis `batch`, because rows are computed alone; None when any number will do.
    """
    if getattr(module, "_in_spec", None) is None or not all(spec.batchable for spec in signature.inputs):
        return None
    values: list[Any] = [node.meta.get("val") for node in placeholders(module)]
    sizes = [value.shape[0] for value in values if getattr(value, "shape", ())]
    fixed = {size for size in sizes if isinstance(size, int)}  # others are symbols, which have no hash
    return fixed.pop() if len(fixed) == 1 and all(isinstance(size, int) for size in sizes) else None
