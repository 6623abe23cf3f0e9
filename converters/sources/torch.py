"""PyTorch: modules by loader, safetensors and class, exported programs (.pt2); exported with the dynamo exporter."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.onnx_graph import rename_inputs, rename_outputs
from converters.passes.base import Built, PassContext
from converters.sources.base import Source, call_loader, register
from hone.artifact import Artifact, hash_file
from hone.errors import ArtifactError, PassError, RecipeError, one_line
from hone.recipe import LoadedRecipe
from hone.signature import Signature
from hone.userload import code_digest

if TYPE_CHECKING:
    import torch

WEIGHTS, PROGRAM = "weights.safetensors", "model.pt2"


@register("torch")
class TorchSource(Source):
    suffixes = (".safetensors", ".pt2", ".pt", ".pth")
    tools = ("torch", "onnxscript")

    def owns(self, model: Any) -> bool:
        import sys

        torch = sys.modules.get("torch")
        return torch is not None and isinstance(model, torch.nn.Module)

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        _require_torch()
        spec, field = loaded.recipe.source, f"{loaded.path}: source"
        if loaded.recipe.signature is None:
            raise RecipeError(
                f"{loaded.path}: signature: is required for a torch model; give its inputs' names, dtypes and shapes"
            )
        signature = loaded.recipe.signature.to_signature()
        if spec.file and spec.file.endswith(".pt2"):
            return _ingest_program(loaded.file(spec.file, "source.file"), out, signature, trust=spec.trust_pickle)
        module = _load(loaded)
        if spec.loader is None:
            return _export_program(module, out, signature, loaded)
        from safetensors.torch import save_file

        from hone.runtimes.torch import keep_module

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
        from hone.runtimes.torch import load_module, takes_names

        module = load_module(model)
        example = example_rows(context, model.signature)
        by_name = takes_names(module, model.signature.input_names)
        nodes = export_graph(module, model.signature, example, by_name, opset, out / "model.onnx")
        return Built("model.onnx", runtime_options={}, details={"opset": opset, "nodes": nodes})

    def inspect(self, file: Path) -> Signature | None:
        """A safetensors file holds weights but no signature; a .pt2's inputs are unnamed to the user. Neither tells."""
        return None


def describe_weights(file: Path) -> tuple[int, int]:
    """Return (tensors, parameters) of a safetensors file, from its header alone.

    Raises:
        RecipeError: the file is not safetensors.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, 100_000_000)))
        tensors = [entry for name, entry in header.items() if name != "__metadata__"]
        total = sum(_product(entry["shape"]) for entry in tensors)
    except (OSError, ValueError, struct.error, AttributeError, KeyError, TypeError):
        raise RecipeError(f"{file}: not a safetensors file") from None
    return len(tensors), total


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


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
        state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
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


def _ingest_program(file: Path, out: Path, signature: Signature, *, trust: bool) -> Built:
    """Copy an exported program and load the copy: what was checked is what every later step loads."""
    import shutil

    from hone.runtimes.torch import load_program

    shutil.copyfile(file, out / PROGRAM)
    try:
        load_program(out / PROGRAM, trust_pickle=trust)
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(str(out / PROGRAM), str(file), 1)) from error
    return Built(PROGRAM, "fp32", signature, runtime_options={"trust_pickle": True} if trust else {})


def _export_program(module: torch.nn.Module, out: Path, signature: Signature, loaded: LoadedRecipe) -> Built:
    """A pickled module has no loader that a fresh process could call, so it is kept as an exported program."""
    context = PassContext(loaded, signature, lambda _: None)
    save_program(module, signature, context, out / PROGRAM)
    return Built(PROGRAM, "fp32", signature)


def save_program(module: torch.nn.Module, signature: Signature, context: PassContext, file: Path) -> None:
    """Write a module as an exported program with the signature's dynamic axes.

    Raises:
        PassError: the module can't be traced.
    """
    import torch

    from hone.runtimes.torch import takes_names

    example = example_rows(context, signature)
    by_name = takes_names(module, signature.input_names)
    arguments = () if by_name else tuple(example.values())
    keywords = example if by_name else {}
    shapes = dynamic_shapes(signature)
    try:
        with _quiet():
            program = torch.export.export(
                module, arguments, keywords, dynamic_shapes=shapes if by_name else tuple(shapes.values())
            )
            torch.export.save(program, file)
    except Exception as error:
        raise _explain(error, module, signature) from error


def example_rows(context: PassContext, signature: Signature) -> dict[str, torch.Tensor]:
    """Return at least two real rows: the exporter takes a batch of one for a constant."""
    import numpy as np
    import torch

    rows = context.sample.inputs
    if len(next(iter(rows.values()))) < 2:
        rows = {name: np.concatenate([array, array]) for name, array in rows.items()}
    return {name: torch.from_numpy(rows[name]) for name in signature.input_names}


def dynamic_shapes(signature: Signature) -> dict[str, dict[int, Any]]:
    import torch

    axes = {name: torch.export.Dim(name) for name in signature.dynamic_axes}
    return {
        spec.name: {index: axes[axis] for index, axis in enumerate(spec.shape) if isinstance(axis, str)}
        for spec in signature.inputs
    }


def export_graph(
    module: torch.nn.Module,
    signature: Signature,
    example: dict[str, torch.Tensor],
    by_name: bool,
    opset: int,
    file: Path,
) -> int:
    """Write a module as an ONNX graph with the signature's names and axes; return its number of nodes.

    Raises:
        PassError: it can't be traced, or a dynamic axis became fixed.
    """
    import onnx

    program = _run_exporter(module, example, by_name, signature, opset)
    with _quiet():
        program.save(file, external_data=False)
    graph = onnx.load(file)
    rename_inputs(graph, signature.input_names)
    rename_outputs(graph, signature.output_names)
    _check_dynamic_axes(graph, signature)
    onnx.save(graph, file)
    return len(graph.graph.node)


def _run_exporter(
    module: torch.nn.Module, example: dict[str, torch.Tensor], by_name: bool, signature: Signature, opset: int
) -> Any:
    import torch

    shapes = dynamic_shapes(signature)
    try:
        with _quiet():
            return torch.onnx.export(
                module,
                args=() if by_name else tuple(example.values()),
                kwargs=example if by_name else None,
                input_names=signature.input_names,
                dynamic_shapes=shapes if by_name else tuple(shapes.values()),
                opset_version=opset,
                dynamo=True,
                external_data=False,
            )
    except Exception as error:
        raise _explain(error, module, signature) from error


def _explain(error: Exception, module: torch.nn.Module, signature: Signature) -> PassError:
    """Say which line of the user's model stopped the exporter, and what usually mends it."""
    text = str(error)
    if "Constraints violated" in text or "specialized" in text or "ConstraintViolation" in text:
        return PassError(
            f"export: a dynamic axis of {signature.dynamic_axes} is burnt into {type(module).__name__}: "
            f"{_line_with(text, 'batch', *signature.dynamic_axes)}; "
            "use tensor.shape in forward instead of a number, or give the axis a fixed size in the signature"
        )
    place = next((line.strip() for line in text.splitlines() if 'File "' in line and "site-packages" not in line), "")
    return PassError(
        f"export: torch can't trace {type(module).__name__}{f' at {place}' if place else ''}: {one_line(error)}; "
        "write the branch or loop with torch operations (torch.where, torch.cond), or move it out of forward"
    )


def _line_with(text: str, *words: str) -> str:
    for line in text.splitlines():
        if any(word in line for word in words):
            return line.strip()[:200]
    return text.splitlines()[0][:200]


def _check_dynamic_axes(model: Any, signature: Signature) -> None:
    """An axis that the signature calls dynamic must be dynamic in the graph, or serving another size would fail."""
    graph_inputs = {value.name: value for value in model.graph.input}
    for spec in signature.inputs:
        dims = graph_inputs[spec.name].type.tensor_type.shape.dim
        for axis, dim in zip(spec.shape, dims, strict=True):
            if isinstance(axis, str) and dim.HasField("dim_value"):
                raise PassError(f"export: axis '{axis}' of input '{spec.name}' was burnt in as {dim.dim_value}")


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter prints its progress and logs warnings about packages nobody asked for; keep the terminal clean."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter._registration")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
