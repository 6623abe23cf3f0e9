"""Set the least important weights to zero: unstructured, or two of every four."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from hone.artifact import Artifact
from hone.errors import PassError

from ...context import Built, PassContext
from ...registry import PassOptions, register
from .weak_channels import share_or_threshold

if TYPE_CHECKING:
    import torch

SPEED = {
    "unstructured": "none: no runtime here skips single zeros; the files only compress better",
    "2:4": "TensorRT's sparse kernels (option sparse_weights) on GPUs from Ampere on; none elsewhere",
}


class Options(PassOptions):
    """Weights of smallest magnitude become zero; shapes stay, so only kernels made for it get faster."""

    sparsity: float | None = Field(0.5, gt=0, lt=1, description="Share of the weights that become zero; 0.5 for 2:4.")
    threshold: float | None = Field(
        None,
        gt=0,
        description="Instead of sparsity: weights of smaller magnitude become zero. For Keras, that many of each layer "
        "as it is before training.",
    )
    pattern: Literal["unstructured", "2:4"] = Field(
        "unstructured", description="2:4 zeroes two of every four weights along the input channels."
    )
    scope: Literal["auto", "global", "layer"] = Field(
        "auto",
        description="Rank weights within each layer, or all together; auto is global for torch and layer for Keras.",
    )
    steps: int = Field(
        1,
        ge=1,
        le=100,
        description="Reach the sparsity in this many steps on a cubic curve, training after each. For Keras, 1 takes a "
        "step at every batch.",
    )
    epochs: int = Field(
        4, ge=0, description="Fine-tuning epochs after each step (for Keras: in all); needs the `train` hook."
    )

    @model_validator(mode="before")
    @classmethod
    def _share_or_threshold(cls, given: Any) -> Any:
        return share_or_threshold(given, "sparsity")

    @model_validator(mode="after")
    def _pattern_fits(self) -> Options:
        if self.threshold is not None and (self.pattern == "2:4" or self.scope != "auto"):
            raise ValueError("threshold: goes with neither pattern 2:4 nor a scope, which rank by share")
        if self.pattern == "2:4" and self.sparsity != 0.5:
            raise ValueError("sparsity: pattern 2:4 is a sparsity of 0.5")
        if self.pattern == "2:4" and self.scope == "global":
            raise ValueError("scope: pattern 2:4 is ranked within groups of four, never globally")
        return self

    def at_step(self, step: int) -> float:
        """Return the sparsity, or threshold, after a step from 1 on (Zhu & Gupta 2017, 'To prune, or not to prune')."""
        whole = self.threshold if self.threshold is not None else self.sparsity
        assert whole is not None
        return whole * (1 - (1 - step / self.steps) ** 3)


@register(
    "sparsify",
    consumes="torch|keras",
    produces="=",
    options=Options,
    needs=("train", "sample"),
    tools=("torch", "tensorflow-cpu", "tf-keras", "tensorflow-model-optimization"),
)
def sparsify(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Mask the smallest weights while the recipe's hook trains the others, then write the zeros into the weights.

    torch: magnitude masks as parametrizations. Keras: tensorflow-model-optimization with its polynomial decay.

    Raises PassError when no layer has weights to zero.
    """
    run = _sparsify_keras if model.runtime == "keras" else _sparsify_torch
    built = run(model, options, out, context)
    built.details["speed_gain"] = SPEED[options.pattern]
    return built


def _sparsify_keras(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    from ...sources.keras.source import FILE
    from ...sources.keras.training import Zeros, train_sparse

    if options.scope == "global":
        raise PassError("sparsify: tensorflow-model-optimization ranks weights by layer; set scope: layer")
    network, shares = train_sparse(
        model,
        Zeros(options.sparsity, options.threshold, options.pattern, options.steps),
        epochs=options.epochs,
        context=context,
    )
    network.save(out / FILE)
    details = {
        "sparsity": round(sum(shares.values()) / len(shares), 4),
        "layers": shares,
        "fine_tuned_epochs": options.epochs if context.train else 0,
    }
    return Built(FILE, signature=model.signature, details=details)


def _sparsify_torch(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    from torch.nn.utils import parametrize

    from hone.runtimes.torch.runtime import load_trainable

    module = load_trainable(model)
    layers = _weights(module)
    masks: dict[str, Any] = {}
    left: list[str] = []
    for name, (owner, attribute) in layers.items():
        weight = getattr(owner, attribute)
        if options.pattern == "2:4" and weight.shape[1] % 4:
            left.append(name)
            continue
        masks[name] = _mask(weight)
        parametrize.register_parametrization(owner, attribute, masks[name])
    if not masks:
        reason = "has input channels in fours" if layers else "is linear or convolutional"
        raise PassError(f"sparsify: no layer of {type(module).__name__} {reason}; leave this pass out of the variant")
    for step in range(1, options.steps + 1):
        _remask(layers, masks, options, step)
        if context.train and options.epochs:
            context.progress(f"fine-tuning, step {step} of {options.steps}, {options.epochs} epochs")
            if context.fine_tune(module, options.epochs) is not module:
                raise PassError(f"sparsify: {context.loaded.recipe.train} must train the model it gets, and return it")
    for name in masks:
        owner, attribute = layers[name]
        parametrize.remove_parametrizations(owner, attribute, leave_parametrized=True)
    module.eval()
    zeros = {name: float((getattr(*layers[name]) == 0).float().mean()) for name in masks}
    if not any(zeros.values()):
        raise PassError(f"sparsify: no weight is below the threshold {options.threshold:g}; raise it")
    details: dict[str, Any] = {
        "sparsity": round(_overall({name: getattr(*layers[name]) for name in masks}), 4),
        "layers": {name: round(share, 4) for name, share in zeros.items()},
        "left_dense": left,
        "fine_tuned_epochs": options.epochs * options.steps if context.train else 0,
    }
    return _save(module, model, out, context, details)


def _mask(weight: torch.Tensor) -> Any:
    """Return a parametrization that multiplies a weight with its `mask`, which is all ones."""
    import torch

    class Mask(torch.nn.Module):
        mask: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mask", torch.ones_like(weight, requires_grad=False))

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return value * self.mask

    return Mask()


def _weights(module: torch.nn.Module) -> dict[str, tuple[torch.nn.Module, str]]:
    """Return the weights of linear and convolutional layers by name: owner and attribute.

    The layers of an exported program are gone; there a weight is what a linear or convolution node reads.
    """
    import torch

    if isinstance(module, torch.fx.GraphModule):
        found = {}
        for node in module.graph.nodes:
            operator = str(node.target).removeprefix("aten.").partition(".")[0]
            if node.op != "call_function" or operator not in _FUNCTIONS:
                continue
            weight = node.args[1]
            if isinstance(weight, torch.fx.Node) and weight.op == "get_attr":
                path, _, attribute = str(weight.target).rpartition(".")
                found[str(weight.target)] = (module.get_submodule(path), attribute)
        return found
    kinds = (torch.nn.Linear, torch.nn.modules.conv._ConvNd)
    return {
        f"{name}.weight" if name else "weight": (layer, "weight")
        for name, layer in module.named_modules()
        if isinstance(layer, kinds)
    }


_FUNCTIONS = ("linear", "conv1d", "conv2d", "conv3d", "convolution")


def _remask(layers: dict[str, tuple[torch.nn.Module, str]], masks: dict[str, Any], options: Options, step: int) -> None:
    """Choose anew what is zero; what was zero stays so, since its masked magnitude is the smallest."""
    import torch

    with torch.no_grad():
        sizes = {name: getattr(*layers[name]).abs() for name in masks}
        if options.pattern == "2:4":
            for name, size in sizes.items():
                masks[name].mask.copy_(_two_of_four(size))
            return
        share = options.at_step(step)
        if options.threshold is not None:
            for name, size in sizes.items():
                masks[name].mask.copy_(size >= share)
            return
        if options.scope == "layer":
            for name, size in sizes.items():
                masks[name].mask.copy_(_largest(size.flatten(), share).view_as(size))
            return
        together = _largest(torch.cat([size.flatten() for size in sizes.values()]), share)
        start = 0
        for name, size in sizes.items():
            masks[name].mask.copy_(together[start : start + size.numel()].view_as(size))
            start += size.numel()


def _largest(sizes: torch.Tensor, share: float) -> torch.Tensor:
    """Return a mask that is zero for the smallest `share` of the values, exactly that many."""
    import torch

    mask = torch.ones_like(sizes)
    mask[torch.topk(sizes, round(share * sizes.numel()), largest=False).indices] = 0
    return mask


def _two_of_four(sizes: torch.Tensor) -> torch.Tensor:
    """Return a mask that keeps the two largest of every four along axis 1, the input channels."""
    import torch

    moved = sizes.movedim(1, -1)
    groups = moved.reshape(-1, 4)
    mask = torch.zeros_like(groups).scatter_(1, groups.topk(2, dim=1).indices, 1.0)
    return mask.view(moved.shape).movedim(-1, 1)


def _overall(weights: dict[str, torch.Tensor]) -> float:
    zeros = sum(int((weight == 0).sum()) for weight in weights.values())
    return zeros / sum(weight.numel() for weight in weights.values())


def _save(module: torch.nn.Module, model: Artifact, out: Path, context: PassContext, details: dict[str, Any]) -> Built:
    """Write the model in the form it came in: weights for the user's class, or an exported program."""
    from ...sources.torch.export import PROGRAM, save_program

    if model.entry.suffix == ".pt2":
        save_program(module, model.signature, context, out / PROGRAM)
        return Built(PROGRAM, signature=model.signature, details=details)
    from safetensors.torch import save_file

    file = out / model.entry.name
    save_file({name: tensor.detach().contiguous().clone() for name, tensor in module.state_dict().items()}, file)
    return Built(file.name, signature=model.signature, details=details)
