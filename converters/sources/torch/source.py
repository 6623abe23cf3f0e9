"""PyTorch: modules by loader, safetensors and class, exported programs (.pt2); exported with the dynamo exporter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, RecipeError, one_line
from hone.files import hash_file
from hone.recipe import LoadedRecipe
from hone.recipe.scripted import scripted
from hone.runtimes.torch import huggingface
from hone.signature import BATCH, Signature, TensorSpec
from hone.userload import code_digest

from ...context import Built, PassContext
from ...graph.batch_axis import common_rows, with_batch
from ..base import Source, call_loader, register
from .export import PROGRAM, export_graph, save_program
from .files import describe_weights
from .huggingface import ingest_folder, inspect_folder, tokenized

if TYPE_CHECKING:
    import torch

WEIGHTS = "weights.safetensors"


@register("torch")
class TorchSource(Source):
    suffixes = (".safetensors", ".pt2", ".pt", ".pth")
    tools = ("torch", "onnxscript")
    has_attention = True

    def owns_folder(self, folder: Path) -> bool:
        return huggingface.is_folder(folder)

    def outputs_of(self, file: Path) -> list[str]:
        return [huggingface.read_folder(file).output] if file.is_dir() else super().outputs_of(file)

    def metric_of(self, file: Path) -> str:
        """Embeddings are compared by their angle."""
        return "cosine" if file.is_dir() and not huggingface.read_folder(file).classifies else ""

    def rows_from_texts(self, file: Path, texts: np.ndarray, where: str) -> Mapping[str, np.ndarray] | None:
        return tokenized(file, texts, where) if self.owns_folder(file) else None

    def refuses(self, file: Path) -> str:
        """TorchScript is code and weights in one, which the exporters don't take."""
        return scripted(file)

    def owns(self, model: Any) -> bool:
        import sys

        torch = sys.modules.get("torch")
        return torch is not None and isinstance(model, torch.nn.Module)

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        _require_torch()
        spec, field = loaded.recipe.source, f"{loaded.path}: source"
        if spec.file and not spec.loader and self.owns_folder(loaded.root / spec.file):
            return ingest_folder(loaded, loaded.file(spec.file, "source.file"), out)
        if spec.file and spec.file.endswith(".pt2"):
            return _ingest_program(loaded, out)
        if loaded.recipe.signature is None:
            raise RecipeError(
                f"{loaded.path}: signature: is required for a torch model; give its inputs' names, dtypes and shapes"
            )
        signature = loaded.recipe.signature.to_signature()
        module = _load(loaded)
        if spec.loader is None:
            return _export_program(module, out, signature, loaded)
        from safetensors.torch import save_file

        from hone.runtimes.torch.runtime import keep_module

        state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
        if not state:
            raise RecipeError(f"{field}.loader: {spec.loader} returned a module without parameters")
        save_file(state, out / WEIGHTS)
        options = {
            "loader": spec.loader,
            "root": str(loaded.root),
            "code": code_digest(spec.loader, loaded.root),
        }
        problem = keep_module(module, spec.loader, loaded.root, hash_file(out / WEIGHTS))
        again = {"note": f"{problem}, so source.loader is called again where the model is needed"} if problem else {}
        precision = "fp32" if all(t.dtype.itemsize >= 4 for t in state.values() if t.is_floating_point()) else "fp16"
        return Built(WEIGHTS, precision, signature, runtime_options=options, details=again)

    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Export with `torch.onnx.export(dynamo=True)`.

        The graph's outputs are renamed afterwards: the exporter names inner values after modules, and an output of
        the same name would make a graph that no runtime loads.
        """
        from hone.runtimes.torch.runtime import load_module

        # Attention as transformers writes it out exports to fewer operators than torch's own.
        folder = model.entry.name == huggingface.CONFIG
        module = huggingface.load_folder(model.path, "eager") if folder else load_module(model)
        nodes = export_graph(module, model.signature, context, opset, out / "model.onnx")
        return Built("model.onnx", runtime_options={}, details={"opset": opset, "nodes": nodes})

    def inspect(self, file: Path) -> Signature | None:
        """Return the inputs of an exported program or a folder; a file of weights holds no signature."""
        if file.is_dir():
            return inspect_folder(file)
        from hone.runtimes.torch.runtime import TorchRuntime, load_program

        if file.suffix != ".pt2" or not TorchRuntime.availability().usable:
            return None
        try:
            return program_signature(load_program(file))
        except ArtifactError as error:
            raise RecipeError(str(error)) from None

    def recipe_lines(self, file: Path) -> list[tuple[str, str]]:
        """Weights alone need the class that they fit."""
        if file.suffix != ".safetensors" or file.is_dir():
            return []
        todo = "TODO: a function in model.py that returns the module they fit"
        return [(f"# {describe_weights(file)}", ""), ("loader: model:build", todo)]


def _require_torch() -> None:
    from hone.runtimes import runtime_class

    runtime_class("torch").require()


def _load(loaded: LoadedRecipe) -> torch.nn.Module:
    """Return the trained module that the recipe names, in evaluation mode."""
    import torch

    spec, field = loaded.recipe.source, f"{loaded.path}: source"
    if spec.loader is None:
        return _unpickle(loaded)
    module = call_loader(loaded)
    if not isinstance(module, torch.nn.Module):
        raise RecipeError(f"{field}.loader: {spec.loader} returned {type(module).__name__}, not an nn.Module")
    if spec.file:
        _fill(module, loaded)
    return module.eval()


def _fill(module: torch.nn.Module, loaded: LoadedRecipe) -> None:
    """Load the recipe's weight file into a module; every tensor must fit."""
    import torch
    from safetensors.torch import load_file

    spec = loaded.recipe.source
    assert spec.file is not None
    file = loaded.file(spec.file, "source.file")
    try:
        safe = file.suffix == ".safetensors"
        state = load_file(file) if safe else torch.load(file, weights_only=True, map_location="cpu")
    except Exception as error:
        raise RecipeError(f"{loaded.path}: source.file: {file} holds no readable weights: {one_line(error)}") from error
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        lines = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
        detail = lines[0] if lines else one_line(error)
        raise RecipeError(f"{loaded.path}: source.file: {file.name} doesn't fit {spec.loader}: {detail}") from error


def _unpickle(loaded: LoadedRecipe) -> torch.nn.Module:
    """Load a whole pickled module; the recipe has `trust_pickle: true`, or it would not have been read."""
    import torch

    spec = loaded.recipe.source
    assert spec.file is not None
    file = loaded.file(spec.file, "source.file")
    if file.suffix == ".safetensors":
        raise RecipeError(
            f"{loaded.path}: source.loader: is required with a .safetensors file, which holds weights but no class"
        )
    if not spec.trust_pickle:
        raise RecipeError(
            f"{loaded.path}: source.file: {file.name} would be read as a pickle, and loading a pickle runs code that "
            "it contains; set 'trust_pickle: true' if you made it, or give source.loader and weights as .safetensors"
        )
    try:
        module = torch.load(file, weights_only=False, map_location="cpu")  # trust_pickle: true  # nosec B614
    except Exception as error:
        raise RecipeError(f"{loaded.path}: source.file: {file} can't be loaded: {one_line(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise RecipeError(
            f"{loaded.path}: source.file: {file.name} holds a {type(module).__name__}, not an nn.Module; "
            "if it is a state dict, add source.loader"
        )
    return module.eval()


def _ingest_program(loaded: LoadedRecipe, out: Path) -> Built:
    """Copy an exported program and load the copy: what was checked is what every later step loads."""
    import shutil

    from hone.runtimes.torch.calls import calling
    from hone.runtimes.torch.runtime import load_program

    spec = loaded.recipe.source
    assert spec.file is not None
    file = loaded.file(spec.file, "source.file")
    shutil.copyfile(file, out / PROGRAM)
    try:
        program = load_program(out / PROGRAM, trust_pickle=spec.trust_pickle)
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(str(out / PROGRAM), str(file), 1)) from error
    given, own = loaded.recipe.signature, program_signature(program)
    signature = given.to_signature() if given else own
    try:
        how = calling(program.module(), signature.input_names)
    except ArtifactError as error:
        raise RecipeError(f"{loaded.path}: signature.inputs: {error}") from None
    _check_axes(signature, how.in_order(own.inputs), loaded)
    return Built(PROGRAM, "fp32", signature, runtime_options={"trust_pickle": True} if spec.trust_pickle else {})


def _check_axes(signature: Signature, own: Mapping[str, TensorSpec], loaded: LoadedRecipe) -> None:
    """Sizes that a program was exported with are fixed, but for the rows: those it takes in parts."""
    for spec in signature.inputs:
        known, where = own[spec.name], f"{loaded.path}: signature.inputs.{spec.name}"
        if spec.dtype != known.dtype or len(spec.shape) != len(known.shape):
            raise RecipeError(f"{where}: is {known.describe()} in the program, not {spec.describe()}")
        for axis, fixed in zip(spec.shape, known.shape, strict=True):
            if isinstance(fixed, int) and axis not in (fixed, BATCH):
                raise RecipeError(
                    f"{where}: is {known.describe()} in the program, not {spec.describe()}; write its sizes, or export "
                    "the program anew with dynamic_shapes"
                )


def program_signature(program: torch.export.ExportedProgram) -> Signature:
    """Return the inputs of an exported program: what they are called, dtypes, sizes; axis 0 is the batch.

    Axes that torch knows to be equal share a name. A fixed number of rows, the same of every input, is a batch too: its
    rows are run in parts of that number.

    Raises:
        RecipeError: an input is no tensor.
    """
    from hone.runtimes.torch.calls import input_names, placeholders

    module = program.module()
    nodes = placeholders(module)
    specs: list[TensorSpec] = []
    axes: dict[str, str] = {}
    for name, node in zip(input_names(getattr(module, "_in_spec", None), nodes), nodes, strict=True):
        value: Any = node.meta.get("val")
        if not hasattr(value, "shape"):
            raise RecipeError(f"the program's input '{name}' is {type(value).__name__}, not a tensor; leave it out")
        shape: list[int | str] = []
        for position, size in enumerate(value.shape):
            text = str(size)
            shape.append(size if isinstance(size, int) else axes.setdefault(text, f"{name}_{position}"))
        specs.append(TensorSpec(name=name, dtype=str(value.dtype).removeprefix("torch."), shape=tuple(shape)))
    signature = Signature(inputs=tuple(_batched(specs)))
    return signature if common_rows(signature) is None else with_batch(signature)


def _batched(specs: list[TensorSpec]) -> list[TensorSpec]:
    """Call axis 0 the batch where every input has the same one."""
    first = {spec.shape[:1] for spec in specs}
    if len(first) != 1 or first == {()}:
        return specs
    (rows,) = first.pop()
    names: dict[int | str, int | str] = {rows: BATCH} if isinstance(rows, str) else {}
    return [
        spec.model_copy(update={"shape": (BATCH, *(names.get(axis, axis) for axis in spec.shape[1:]))})
        for spec in specs
    ]


def _export_program(module: torch.nn.Module, out: Path, signature: Signature, loaded: LoadedRecipe) -> Built:
    """A pickled module has no loader that a fresh process could call, so it is kept as an exported program."""
    context = PassContext(loaded, signature, lambda _: None)
    save_program(module, signature, context, out / PROGRAM)
    return Built(PROGRAM, "fp32", signature)
