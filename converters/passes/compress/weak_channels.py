"""Channels whose weights are all small: what a threshold removes, where a share would remove the smallest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def share_or_threshold(given: Any, share: str) -> Any:
    """Return options of a pass that takes a share or a threshold; a threshold leaves no share.

    Raises:
        ValueError: both are given.
    """
    if not isinstance(given, dict) or given.get("threshold") is None:
        return given
    if given.get(share) is not None:
        raise ValueError(f"threshold: give it or {share}, not both")
    return {**given, share: None}


def prune_below(pruner: Any, threshold: float, power: int, round_to: int) -> None:
    """Remove the channels whose mean weight is below a threshold, in every group of layers that share channels.

    A channel is as strong as it is in the layer that gives it most: the mean magnitude of its weights there (power 1),
    or their root mean square (power 2), biases left out. Each group keeps a channel at least, and a multiple of
    `round_to`.

    Args:
        pruner: of torch-pruning, which knows the groups; its own ranking by share isn't used.
        threshold: in the unit of the weights.
        power: 1 or 2.
        round_to: as the pass's option.
    """
    import torch

    groups = pruner.DG.get_all_groups(ignored_layers=pruner.ignored_layers, root_module_types=pruner.root_module_types)
    for group in groups:
        strength = _strengths(pruner, group, power)
        if strength is None:
            continue
        parts = pruner._get_channel_groups(group)  # grouped convolutions and norms lose the same place of each part
        weakest = strength.view(parts, -1).amax(0)
        channels = len(weakest)
        kept = max(1, int((weakest >= threshold).sum()))
        gone = channels - min(channels, -(-kept // round_to) * round_to)
        if not gone:
            continue
        places = torch.argsort(weakest)[:gone]
        index = torch.cat([places + part * channels for part in range(parts)]).tolist()
        first = group[0].dep
        pruner.DG.get_pruning_group(first.target.module, first.handler, index).prune()


def _strengths(pruner: Any, group: Any, power: int) -> torch.Tensor | None:
    """Return the strength of each channel of a group; None where no layer with weights gives them."""
    import torch

    found = torch.zeros(len(group[0].idxs))
    seen = False
    for place, (dep, index) in enumerate(group):
        layer, roots = dep.layer, group[place].root_idxs
        gives = pruner.DG.is_out_channel_pruning_fn(dep.pruning_fn)
        if not gives or not isinstance(layer, torch.nn.Linear | torch.nn.modules.conv._ConvNd):
            continue
        if any(root is None for root in roots):
            continue
        seen = True
        weight = layer.weight.detach()
        weight = weight.transpose(0, 1) if getattr(layer, "transposed", False) else weight
        means = weight[index].flatten(1).abs().pow(power).mean(1).pow(1 / power)
        places = torch.tensor(roots)
        found[places] = torch.maximum(found[places], means)
    return found if seen else None
