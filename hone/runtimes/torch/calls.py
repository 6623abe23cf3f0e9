"""How a torch module is called with named tensors, and what the tensors that it gives back are called.

Modules take tensors by name, by position or as one dict, and give back a tensor or any nest of tuples, lists, dicts and
None. Exported programs are called as they were exported, whatever their inputs are called in the recipe.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from hone.errors import ArtifactError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Calling:
    """How named tensors become a module's arguments.

    Attributes:
        names: of the inputs, in the signature's order.
        form: keywords of `forward`; its positions; members of its `*arguments`; one dict; or the tree that a
            program was exported with.
        tree: of a program: the specification of (args, kwargs).
        order: of a program: which of `names` stands at each leaf of the tree.
    """

    names: tuple[str, ...]
    form: Literal["keywords", "positions", "members", "dict", "program"]
    tree: Any = None
    order: tuple[int, ...] = ()

    def arguments(self, tensors: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what to call the module with; the values may be anything that belongs to the inputs."""
        if self.form == "keywords":
            return (), {name: tensors[name] for name in self.names}
        if self.form in ("positions", "members"):
            return tuple(tensors[name] for name in self.names), {}
        if self.form == "dict":
            return ({name: tensors[name] for name in self.names},), {}
        from torch.utils import _pytree as pytree

        leaves = [tensors[self.names[index]] for index in self.order]
        positional, keywords = pytree.tree_unflatten(leaves, self.tree)
        return tuple(positional), dict(keywords)

    def in_order(self, leaves: Sequence[Any]) -> dict[str, Any]:
        """Return what a program has for each input by the signature's name; `leaves` are in the program's order."""
        order = self.order or range(len(self.names))
        return {self.names[index]: leaf for index, leaf in zip(order, leaves, strict=True)}

    def call(self, module: torch.nn.Module, tensors: Mapping[str, Any]) -> Any:
        positional, keywords = self.arguments(tensors)
        return module(*positional, **keywords)


def calling(module: torch.nn.Module, names: Sequence[str]) -> Calling:
    """Find out how a module takes the inputs of a signature.

    Raises:
        ArtifactError: an exported program has another number of inputs.
    """
    tree = getattr(module, "_in_spec", None)
    if tree is not None and hasattr(module, "graph"):
        return _program_calling(tree, placeholders(module), tuple(names))
    try:
        parameters = inspect.signature(module.forward).parameters
    except (TypeError, ValueError):
        return Calling(tuple(names), "positions")
    if all(name in parameters for name in names):
        return Calling(tuple(names), "keywords")
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in parameters.values() if p.default is p.empty]
    if len(names) > 1 and len(required) == 1 and required[0].kind in kinds:
        return Calling(tuple(names), "dict")
    return Calling(tuple(names), "positions")


def placeholders(module: torch.nn.Module) -> list[torch.fx.Node]:
    """Return the input nodes of a traced module."""
    graph: torch.fx.Graph = module.graph  # type: ignore[assignment]
    return [node for node in graph.nodes if node.op == "placeholder"]


def input_names(tree: Any, nodes: Sequence[torch.fx.Node]) -> list[str]:
    """Return what a program's inputs are called: keywords and dict keys by their name, others as they were traced."""
    from torch.utils import _pytree as pytree

    paths, _ = pytree.tree_flatten_with_path(pytree.tree_unflatten(list(range(len(nodes))), tree))
    last = [path[-1] for path, _ in paths]
    own = [
        str(key.key) if isinstance(key, pytree.MappingKey) else node.name for key, node in zip(last, nodes, strict=True)
    ]
    return own if len(set(own)) == len(own) else [node.name for node in nodes]


def _program_calling(tree: Any, nodes: Sequence[torch.fx.Node], names: tuple[str, ...]) -> Calling:
    if len(nodes) != len(names):
        raise ArtifactError(
            f"the program was exported with {len(nodes)} inputs ({', '.join(input_names(tree, nodes))}), "
            f"the signature has {len(names)}: {', '.join(names)}"
        )
    for own in (input_names(tree, nodes), [node.name for node in nodes]):
        if set(own) == set(names):
            return Calling(names, "program", tree, tuple(names.index(name) for name in own))
    return Calling(names, "program", tree, tuple(range(len(names))))


def named_tensors(result: Any) -> dict[str, torch.Tensor]:
    """Return what a module gave as tensors by name.

    A tensor is `output`; members of tuples and lists are `output_0`, `output_1`; those of mappings, such as a
    ModelOutput, have their key; deeper ones join the names of the way to them: `output_1_scores`. None and plain
    numbers are no output.

    Raises:
        ArtifactError: there is no tensor in it.
    """
    import torch

    if isinstance(result, torch.Tensor):
        return {"output": result}
    found: dict[str, torch.Tensor] = {}
    prefix = "" if isinstance(result, Mapping) else "output"
    for name, value in _leaves(result, prefix):
        found[name if name not in found else f"{name}_{len(found)}"] = value
    if not found:
        raise ArtifactError(f"the model returned {type(result).__name__} without a tensor; return tensors, in any nest")
    return found


def _leaves(value: Any, name: str) -> list[tuple[str, torch.Tensor]]:
    import torch
    from torch.utils import _pytree as pytree

    if isinstance(value, torch.Tensor):
        return [(name, value)]
    if isinstance(value, Mapping):
        members = [(str(key), member) for key, member in value.items()]
    elif isinstance(value, tuple | list):
        members = [(str(index), member) for index, member in enumerate(value)]
    else:  # a class of the user's that torch knows how to take apart
        inner, _ = pytree.tree_flatten(value)
        members = [] if inner == [value] else [(str(index), member) for index, member in enumerate(inner)]
    return [leaf for key, member in members for leaf in _leaves(member, f"{name}_{key}" if name else key)]
