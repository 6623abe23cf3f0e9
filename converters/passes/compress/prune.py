"""Structured pruning: whole channels and neurons are removed, so the model gets smaller and faster everywhere."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from hone.artifact import Artifact
from hone.errors import PassError, one_line

from ...context import Built, PassContext
from ...registry import PassOptions, register
from .weak_channels import prune_below, share_or_threshold

if TYPE_CHECKING:
    import torch


class Options(PassOptions):
    """Removal of the least important channels, then fine-tuning by the recipe's `train` hook."""

    ratio: float | None = Field(0.5, gt=0, lt=1, description="Share of each layer's channels to remove.")
    threshold: float | None = Field(
        None,
        gt=0,
        description="Instead of ratio: remove channels whose weights are smaller, as their mean magnitude (l1) or root "
        "mean square (l2), in every layer that gives them.",
    )
    importance: Literal["l1", "l2"] = Field("l2", description="Norm by which a channel's weights are ranked.")
    scope: Literal["layer", "global"] = Field(
        "layer", description="Remove `ratio` of every layer, or of all channels together wherever they matter least."
    )
    steps: int = Field(1, ge=1, le=20, description="Prune in this many steps, fine-tuning after each.")
    epochs: int = Field(8, ge=0, description="Fine-tuning epochs after each step; needs the recipe's `train` hook.")
    round_to: int = Field(8, ge=1, description="Keep channel counts a multiple of this: kernels like even sizes.")
    layers: tuple[str, ...] = Field(
        (),
        description="Names of layers that may lose channels, `*` for any part, such as '*.wide'; default: all that "
        "don't give an output. Name a transformer's, whose residual width must stay.",
    )
    heads: str = Field(
        "",
        description="Remove whole attention heads too: the attribute of an attention module that holds their number.",
    )
    projections: tuple[str, ...] = Field(
        ("query", "key", "value"), description="With heads: the attention module's linear layers."
    )

    @model_validator(mode="before")
    @classmethod
    def _share_or_threshold(cls, given: Any) -> Any:
        return share_or_threshold(given, "ratio")

    @model_validator(mode="after")
    def _fits_a_threshold(self) -> Options:
        if self.threshold is not None and (self.heads or self.scope == "global"):
            raise ValueError("threshold: goes with neither heads nor scope: global, which rank by ratio")
        return self


@register(
    "prune",
    consumes="torch",
    produces="torch",
    options=Options,
    needs=("train", "sample"),
    tools=("torch", "torch-pruning"),
)
def prune(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Remove channels along the dependency graph of the traced model (Fang et al. 2023, 'DepGraph', torch-pruning).

    Layers that give the model's outputs keep their size. The result is stored as an exported program, because the
    user's class no longer describes it.

    Raises PassError when nothing could be removed or the pruned model no longer runs.
    """
    from hone.runtimes.torch.runtime import load_trainable

    from ...sources.torch.export import PROGRAM, save_program

    module = load_trainable(model)
    example = _example(module, model, context)
    before = _size(module)
    attentions = _attentions(module, options)
    heads_before = sum(getattr(attention, options.heads) for attention in attentions)
    pruner = _pruner(module, example, attentions, options)
    for step in range(1, options.steps + 1):
        _step(pruner, module, options)
        for attention in attentions:
            setattr(attention, options.heads, pruner.num_heads[getattr(attention, options.projections[0])])
        if context.train and options.epochs:
            context.progress(f"fine-tuning, step {step} of {options.steps}, {options.epochs} epochs")
            module = context.fine_tune(module, options.epochs)
    after = _size(module)
    if after["parameters"] == before["parameters"]:
        remedy = "lower round_to" if options.threshold is None else "lower round_to, raise threshold"
        raise PassError(f"prune: no layer could be pruned; {remedy}, or leave this pass out of the variant")
    module.eval()
    save_program(module, model.signature, context, out / PROGRAM)
    details = {
        "parameters_before": before["parameters"],
        "parameters_after": after["parameters"],
        "channels": {name: f"{before['channels'][name]} -> {count}" for name, count in after["channels"].items()},
        "fine_tuned_epochs": options.epochs * options.steps if context.train else 0,
    }
    if attentions:
        left = sum(getattr(attention, options.heads) for attention in attentions)
        details["heads"] = f"{heads_before} -> {left}"
    return Built(PROGRAM, signature=model.signature, runtime_options={}, details=details)


def _example(module: torch.nn.Module, model: Artifact, context: PassContext) -> Any:
    """Return sample rows as the module takes them: tensors by position, or by name."""
    import torch

    from hone.runtimes.torch.calls import calling

    tensors = {name: torch.from_numpy(array) for name, array in context.sample.inputs.items()}
    positional, keywords = calling(module, model.signature.input_names).arguments(tensors)
    return keywords or positional


def _attentions(module: torch.nn.Module, options: Options) -> list[torch.nn.Module]:
    """Return the modules that hold a number of heads and its projections.

    Raises:
        PassError: there are none, or their heads don't divide the projections' width.
    """
    if not options.heads:
        return []
    found = []
    for name, part in module.named_modules():
        layers = [getattr(part, projection, None) for projection in options.projections]
        heads = getattr(part, options.heads, None)
        if not isinstance(heads, int) or any(layer is None for layer in layers):
            continue
        if any(int(layer.out_features) % heads for layer in layers if layer is not None):
            raise PassError(f"prune: heads: {name} has {heads} heads, which don't divide its projections' width")
        found.append(part)
    if not found:
        raise PassError(
            f"prune: heads: no module has an integer '{options.heads}' and the layers {list(options.projections)}; "
            "set heads and projections to the names that the model's code uses"
        )
    return found


def _kept(module: torch.nn.Module, options: Options) -> list[torch.nn.Module]:
    """Return the layers that the option `layers` doesn't name, which keep their size.

    Raises:
        PassError: a pattern matches no layer.
    """
    import torch

    if not options.layers:
        return []
    kinds = (torch.nn.Linear, torch.nn.modules.conv._ConvNd, torch.nn.LSTM)
    names = {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)}
    for pattern in options.layers:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise PassError(f"prune: layers: '{pattern}' matches no layer; there are {', '.join(names)}")
    return [layer for name, layer in names.items() if not any(fnmatchcase(name, p) for p in options.layers)]


def _pruner(module: torch.nn.Module, example: Any, attentions: list[torch.nn.Module], options: Options) -> Any:
    import torch_pruning

    kept = _kept(module, options)
    heads = {
        getattr(attention, projection): getattr(attention, options.heads)
        for attention in attentions
        for projection in options.projections
    }
    try:
        return torch_pruning.pruner.BasePruner(
            module,
            example,
            importance=torch_pruning.importance.GroupMagnitudeImportance(p=1 if options.importance == "l1" else 2),
            global_pruning=options.scope == "global",
            pruning_ratio=options.ratio or 0.0,
            iterative_steps=options.steps,
            ignored_layers=[*_output_layers(module, example), *kept],
            round_to=options.round_to,
            num_heads=heads,
            prune_num_heads=bool(heads),
            prune_head_dims=False,
            head_pruning_ratio=(options.ratio or 0.0) if heads else 0.0,
        )
    except Exception as error:
        raise PassError(f"prune: {type(module).__name__} can't be traced for pruning: {one_line(error)}") from error


def _step(pruner: Any, module: torch.nn.Module, options: Options) -> None:
    try:
        if options.threshold is None:
            pruner.step()
        else:
            prune_below(pruner, options.threshold, 1 if options.importance == "l1" else 2, options.round_to)
    except Exception as error:
        raise PassError(f"prune: removing channels of {type(module).__name__} failed: {one_line(error)}") from error


def _output_layers(module: torch.nn.Module, example: Any) -> list[torch.nn.Module]:
    """Return the layers whose width is the model's output: found by which layer's result has no later layer.

    A layer gives an output when the output tensor's gradient history reaches its parameters before any other
    layer's.
    """
    import torch

    from hone.runtimes.torch.calls import named_tensors

    owners: dict[int, torch.nn.Module] = {
        id(parameter): layer
        for layer in module.modules()
        for parameter in layer.parameters(recurse=False)
        if isinstance(layer, torch.nn.Linear | torch.nn.modules.conv._ConvNd)
    }
    with torch.enable_grad():
        for parameter in module.parameters():
            parameter.requires_grad_(True)
        result = module(**example) if isinstance(example, dict) else module(*example)
        layers: dict[int, torch.nn.Module] = {}
        for tensor in named_tensors(result).values():
            for layer in _nearest_layers(tensor.grad_fn, owners):
                layers[id(layer)] = layer
    return list(layers.values())


def _nearest_layers(function: Any, owners: dict[int, torch.nn.Module]) -> list[torch.nn.Module]:
    """Walk the autograd graph from an output to the first layers on every path."""
    found: list[torch.nn.Module] = []
    queue, seen = [function], set()
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        direct = [
            owners[id(parent.variable)]
            for parent, _ in node.next_functions
            if parent is not None and hasattr(parent, "variable") and id(parent.variable) in owners
        ]
        through = [
            owners[id(inner.variable)]
            for parent, _ in node.next_functions
            if parent is not None and type(parent).__name__ == "TBackward0"
            for inner, _ in parent.next_functions
            if hasattr(inner, "variable") and id(inner.variable) in owners
        ]
        if direct or through:
            found.extend(direct + through)
            continue
        queue.extend(parent for parent, _ in node.next_functions)
    return found


def _size(module: torch.nn.Module) -> dict[str, Any]:
    import torch

    channels = {}
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.Linear):
            channels[name] = layer.out_features
        elif isinstance(layer, torch.nn.modules.conv._ConvNd):
            channels[name] = layer.out_channels
    return {"parameters": sum(parameter.numel() for parameter in module.parameters()), "channels": channels}
