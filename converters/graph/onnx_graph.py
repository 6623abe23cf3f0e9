"""Edits of ONNX graphs that several passes and sources need."""

from __future__ import annotations

import math
import re
from pathlib import Path

import onnx
from onnx import helper

from hone.errors import PassError, one_line
from hone.signature import AXIS_NAME, BATCH, Signature, TensorSpec

LIMIT = 2**31 - 1
"""Protobuf's largest message; larger models keep their weights in a second file."""

ROOM = 64 * 1024
"""For the nodes beside the weights, where only the weights are counted: a message over the limit has no size."""


def load_graph(file: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Read an ONNX file, with or without its external data; raises PassError when it is not one."""
    try:
        return onnx.load(file, load_external_data=weights)
    except Exception as error:
        raise PassError(f"{file}: not a readable ONNX model: {one_line(error)}") from error


def save_graph(model: onnx.ModelProto, file: Path) -> None:
    """Write an ONNX file; one over protobuf's limit keeps its weights in a second file beside it.

    That of a file that was there before is gone then: its tensors must be in memory.
    """
    weights = file.with_name(f"{file.name}.data")
    weights.unlink(missing_ok=True)  # onnx appends to one
    if not is_large(model):
        onnx.save(model, file)
        return
    onnx.save(model, file, save_as_external_data=True, location=weights.name)
    if weights.exists():
        weights.chmod(file.stat().st_mode)  # onnx lets its owner alone read it
    # What it writes it takes out of the graph, tensor by tensor.
    onnx.load_external_data_for_model(model, str(file.parent))


def save_with_shapes(model: onnx.ModelProto, file: Path) -> None:
    """Write an ONNX file as `save_graph` does, with the shapes of inner values that can be inferred."""
    if is_large(model):
        save_graph(model, file)
        onnx.shape_inference.infer_shapes_path(file, file)
    else:
        save_graph(onnx.shape_inference.infer_shapes(model), file)


def is_large(model: onnx.ModelProto) -> bool:
    """Return whether a graph with its weights is too large for one file."""
    constants = [item.t for node in model.graph.node for item in node.attribute if item.HasField("t")]
    weights = sum(_size(tensor) for tensor in (*model.graph.initializer, *constants))
    if weights + ROOM >= LIMIT:
        return True
    # What counts bytes exactly serializes the graph for it, which for most takes longer than what it is asked for.
    return weights > LIMIT // 2 and model.ByteSize() >= LIMIT


def _size(tensor: onnx.TensorProto) -> int:
    """Return the bytes of a tensor's values, wherever a graph keeps them."""
    return len(tensor.raw_data) or math.prod(tensor.dims) * 8


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
            mapping[name] = free_name(f"{name}_inner", taken)
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


def name_nodes(model: onnx.ModelProto) -> None:
    """Give nodes without a name one made from what they give: what a pass reports and leaves out goes by names.

    The same graph always gets the same names. None is a value's own: see `rename_outputs`.
    """
    taken = {node.name for node in model.graph.node} | value_names(model)
    for node in model.graph.node:
        if not node.name:
            node.name = free_name(f"node_{next(filter(None, node.output), node.op_type)}", taken)


def free_name(name: str, taken: set[str]) -> str:
    """Return a name that no value has, made from `name`, and add it to `taken`."""
    candidate, count = name, 1
    while candidate in taken:
        candidate, count = f"{name}_{count}", count + 1
    taken.add(candidate)
    return candidate


def rename_inputs(model: onnx.ModelProto, names: list[str]) -> None:
    """Give the graph's inputs these names, in order; initializers that old files list among the inputs are left out.

    Raises:
        PassError: the counts differ.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) != len(names):
        raise PassError(f"export: the graph has inputs {[value.name for value in inputs]}, the signature names {names}")
    taken = value_names(model) - {value.name for value in inputs}
    mapping: dict[str, str] = {}
    for value, name in zip(inputs, names, strict=True):
        if value.name != name:
            if name in taken:
                mapping[name] = free_name(f"{name}_inner", taken)
            mapping[value.name] = name
    _rename(model.graph, mapping)


def drop_unused_weights(model: onnx.ModelProto) -> None:
    """Remove initializers that no node and no output reads, branches and bodies of nodes included."""
    used = {value.name for value in model.graph.output} | _read(model.graph)
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _read(graph: onnx.GraphProto) -> set[str]:
    names: set[str] = set()
    for node in graph.node:
        names.update(node.input)
        for attribute in node.attribute:
            for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                names |= _read(inner) | {value.name for value in inner.output}
    return names


def set_input_axes(model: onnx.ModelProto, signature: Signature) -> None:
    """Write the signature's axes into the graph's inputs: names for dynamic ones, sizes for the others."""
    specs = {spec.name: spec for spec in signature.inputs}
    for value in model.graph.input:
        spec = specs.get(value.name)
        if spec is None:
            continue
        dims = value.type.tensor_type.shape.dim
        del dims[:]
        for axis in spec.shape:
            if isinstance(axis, int):
                dims.add().dim_value = axis
            else:
                dims.add().dim_param = axis


def graph_signature(model: onnx.ModelProto) -> Signature:
    """Return the signature that a graph declares.

    A dynamic axis 0 is called `batch`, whatever name the graph has for it; other dynamic axes keep their name, or get
    one from their position.

    Raises:
        PassError: an input or output is no tensor, or has an unknown element type.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    return Signature(
        inputs=tuple(_spec(value) for value in inputs), outputs=tuple(_spec(value) for value in model.graph.output)
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise PassError(
            f"'{value.name}' is a {value.type.WhichOneof('value')}, not a tensor; export the model without it "
            "(for scikit-learn: option zipmap=False)"
        )
    tensor = value.type.tensor_type
    name = "string" if tensor.elem_type == onnx.TensorProto.STRING else _DTYPES.get(tensor.elem_type)
    if name is None:
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        raise PassError(f"'{value.name}' has element type {kind}, which Hone doesn't serve")
    shape: list[int | str] = []
    for position, dim in enumerate(tensor.shape.dim):
        if dim.HasField("dim_value") and dim.dim_value > 0:
            shape.append(dim.dim_value)
        elif position == 0:
            shape.append(BATCH)
        else:
            text = re.sub(r"\W", "_", dim.dim_param) if dim.dim_param else f"{value.name}_{position}"
            shape.append(text if AXIS_NAME.match(text) else f"axis_{text}")
    return TensorSpec(name=value.name, dtype=name, shape=tuple(shape))


_DTYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.DOUBLE: "float64",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.INT8: "int8",
    onnx.TensorProto.INT16: "int16",
    onnx.TensorProto.INT32: "int32",
    onnx.TensorProto.INT64: "int64",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.UINT16: "uint16",
    onnx.TensorProto.UINT32: "uint32",
    onnx.TensorProto.UINT64: "uint64",
    onnx.TensorProto.BOOL: "bool",
}
