"""Edits of ONNX graphs that several passes and sources need."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from hone.errors import PassError, one_line


def load_graph(file: Path) -> onnx.ModelProto:
    """Read an ONNX file, external data included; raises PassError when it is not one."""
    try:
        return onnx.load(file)
    except Exception as error:
        raise PassError(f"{file}: not a readable ONNX model: {one_line(error)}") from error


def rename_outputs(model: onnx.ModelProto, names: list[str]) -> None:
    """Give the graph's outputs these names, in order; an inner value that has one of them already is renamed first.

    Raises:
        PassError: the counts differ.
    """
    graph = model.graph
    if len(graph.output) != len(names):
        raise PassError(
            f"export: the graph has {len(graph.output)} outputs ({[value.name for value in graph.output]}), "
            f"the signature names {len(names)}: {names}"
        )
    taken = value_names(model)
    mapping: dict[str, str] = {}
    for value, name in zip(graph.output, names, strict=True):
        if value.name == name:
            continue
        if name in taken:
            mapping[name] = _free(f"{name}_inner", taken)
        mapping[value.name] = name
    _separate_outputs(model, mapping)
    _rename(graph, mapping)
    for node in graph.node:
        # Runtimes refuse a node named like a value that they index; names of nodes carry no meaning.
        if node.name in names:
            node.name = f"node_{node.name}"


def value_names(model: onnx.ModelProto) -> set[str]:
    """Return the name of every value of the graph: inputs, initializers and what nodes give."""
    graph = model.graph
    names = {value.name for value in (*graph.input, *graph.initializer)}
    return names | {output for node in graph.node for output in node.output}


def _separate_outputs(model: onnx.ModelProto, mapping: dict[str, str]) -> None:
    """An output that is an input, an initializer, or given twice gets an Identity of its own before it is renamed."""
    graph = model.graph
    fixed = {value.name for value in (*graph.input, *graph.initializer)}
    for value in graph.output:
        if value.name in fixed and value.name in mapping:
            name = mapping.pop(value.name)
            graph.node.append(helper.make_node("Identity", [value.name], [name], name=f"identity_{name}"))
            value.name = name


def _rename(graph: onnx.GraphProto, mapping: dict[str, str]) -> None:
    """Rename values in a graph and in the branches and bodies inside it, which may read outer values."""
    for node in graph.node:
        node.input[:] = [mapping.get(name, name) for name in node.input]
        node.output[:] = [mapping.get(name, name) for name in node.output]
        for attribute in node.attribute:
            for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                _rename(inner, mapping)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = mapping.get(value.name, value.name)


def _free(name: str, taken: set[str]) -> str:
    candidate, count = name, 1
    while candidate in taken:
        candidate, count = f"{name}_{count}", count + 1
    taken.add(candidate)
    return candidate
