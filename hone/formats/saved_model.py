"""SavedModels of TensorFlow: nothing in one may reach outside of its graph, while it is loaded or run.

Loading runs what restores its objects, such as tables, and a call runs what the signature leads to; both are functions
of graph operators, some of which read and write files or call Python. So operators are allowed by form: those that
TensorFlow knows and keeps no state for, less a few that open files all the same, and the state of a model itself:
variables, tables in memory, random numbers.

What saves and restores checkpoints lies in every SavedModel. It is let be where no object leads to it: TensorFlow 2
restores variables by itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ArtifactError, one_line
from hone.names import shown

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import MetaGraphDef

FILE = "saved_model.pb"
VARIABLES = re.compile(r"variables\.(index|data-\d{5}-of-\d{5})")
LARGEST = 2_000_000_000
STATE = re.compile(
    r"VarHandleOp|ReadVariableOp|Assign(Add|Sub)?VariableOp|VarIsInitializedOp|VariableShape|DisableCopyOnRead|"
    r"DestroyResourceOp|ResourceGather(Nd)?|StatefulPartitionedCall|If|While|Case|For|Assert|Placeholder|"
    r"(Mutable)?(Dense)?(Hash|AnonymousHash|AnonymousMutableHash)Table(V2)?|InitializeTableV2|"
    r"LookupTable(Find|Import|Size|Export|Insert)V2|(Truncated|Parameterized)?Random\w+|Truncated(Normal)|Multinomial|"
    r"Stateful\w*Random\w*|RngReadAndSkip|RngSkip|StatefulUniform\w*|StatefulStandardNormal(V2)?|StatefulTruncatedNormal"
)
"""Operators with state that stays inside a model."""
OUTSIDE = re.compile(
    r"\w*(File|Dataset|Iterator|Reader|PyFunc|Checkpoint|Vocab|Debug|Print|Restore|Save|Remote|Rpc|Summary|Event)\w*|"
    r"ImmutableConst|SymbolicGradient|Xla\w*|_\w+"
)
"""Operators that open files, call Python or other hosts, or run what they are given, with state or without."""


def read_graph(folder: Path) -> MetaGraphDef:
    """Return the graph of a SavedModel whose operators stay inside of it.

    TensorFlow must have been imported.

    Raises:
        ArtifactError: it can't be read, is of TensorFlow 1, reads a vocabulary from a file, or an operator can reach
            outside.
    """
    from tensorflow.core.protobuf import saved_model_pb2

    file = folder / FILE
    try:
        if file.stat().st_size > LARGEST:
            raise ArtifactError(f"{file}: is larger than {LARGEST / 1e9:.0f} GB")
        found = saved_model_pb2.SavedModel()
        found.ParseFromString(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder}: not a readable SavedModel: {one_line(error)}") from error
    except Exception as error:  # protobuf's own, by the implementation that is installed
        raise ArtifactError(f"{folder}: not a readable SavedModel: {one_line(error)}") from error
    graphs = [graph for graph in found.meta_graphs if "serve" in graph.meta_info_def.tags]
    if len(graphs) != 1:
        raise ArtifactError(f"{folder}: has {len(graphs)} graphs to serve, and must have one; save the model anew")
    _check(folder, graphs[0])
    return graphs[0]


def _check(folder: Path, graph: MetaGraphDef) -> None:
    if not graph.object_graph_def.nodes:
        raise ArtifactError(
            f"{folder}: is a SavedModel of TensorFlow 1, which runs its graph to be loaded; load it where you trust "
            "it, and save it with TensorFlow 2 (tf.saved_model.save), or convert it to ONNX"
        )
    if graph.asset_file_def:
        name = shown(graph.asset_file_def[0].filename)
        raise ArtifactError(f"{folder}: reads {name}, a file beside it such as a vocabulary; keep that in a step")
    for function, operator in _operators(graph):
        if problem := _problem(operator):
            raise ArtifactError(
                f"{folder}: the operator {shown(operator)} in {shown(function)} {problem}, so the SavedModel is "
                "refused; take it out of what is saved, or save the model as .keras"
            )


def _operators(graph: MetaGraphDef) -> Iterator[tuple[str, str]]:
    """Yield the operators of all functions that an object of the model leads to, each with its function's name."""
    library: dict[str, Any] = {function.signature.name: function for function in graph.graph_def.library.function}
    left, seen = _roots(graph), set()
    while left:
        name = left.pop()
        if name in seen or name not in library:
            continue
        seen.add(name)
        for node in library[name].node_def:
            yield name, node.op
            for value in node.attr.values():
                left += [value.func.name, *(function.name for function in value.list.func)]


def _roots(graph: MetaGraphDef) -> list[str]:
    """Return the functions that objects hold: every one that loading may run, or a caller."""
    held = graph.object_graph_def
    names = set(held.concrete_functions)
    for node in held.nodes:
        names.add(node.bare_concrete_function.concrete_function_name)
        names.update(node.function.concrete_functions)
    return list(names)


def _problem(operator: str) -> str:
    from tensorflow.python.framework import op_def_registry

    known = op_def_registry.get(operator)
    if known is None:
        return "is not TensorFlow's own"
    inside = STATE.fullmatch(operator) or (not known.is_stateful and not OUTSIDE.fullmatch(operator))
    return "" if inside else "can reach outside the model"
