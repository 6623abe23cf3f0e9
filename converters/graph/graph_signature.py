"""Give a converted graph exactly the inputs and outputs of a signature: names, dtypes, shapes and dynamic axes."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from hone.errors import PassError
from hone.signature import Signature, TensorSpec

from .onnx_graph import free_name, rename_outputs, value_names

FLAT = "flat_shape"


def element_type(spec: TensorSpec) -> int:
    """Return the ONNX element type of a spec."""
    names = {"float32": "FLOAT", "float64": "DOUBLE"}
    return int(TensorProto.DataType.Value(names.get(spec.dtype, spec.dtype.upper())))


def value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, element_type(spec), list(spec.shape))


def joined_columns(signature: Signature, dtype: int, matrix: str) -> list[onnx.NodeProto]:
    """Return nodes that turn the signature's inputs into one matrix: each cast to `dtype`, then side by side.

    Raises:
        PassError: an input is neither a column [batch, 1] or [batch], nor a matrix [batch, n].
    """
    nodes, columns = [], []
    for spec in signature.inputs:
        if len(spec.shape) not in (1, 2):
            raise PassError(f"export: input '{spec.name}' is {spec.describe()}; a column is [batch, 1] or [batch]")
        name = spec.name
        if element_type(spec) != dtype:
            nodes.append(helper.make_node("Cast", [name], [f"{name}_cast"], to=dtype))
            name = f"{name}_cast"
        if len(spec.shape) == 1:
            axis = f"{spec.name}_axis"
            nodes.append(helper.make_node("Constant", [], [axis], value_ints=[1]))
            nodes.append(helper.make_node("Unsqueeze", [name, axis], [f"{spec.name}_column"]))
            name = f"{spec.name}_column"
        columns.append(name)
    nodes.append(helper.make_node("Concat", columns, [matrix], axis=1))
    return nodes


def fit_outputs(model: onnx.ModelProto, own: list[str], signature: Signature) -> None:
    """Make the graph's outputs those of the signature, in place.

    Args:
        model: a converted graph.
        own: what the source framework calls the graph's outputs, in the graph's order.
        signature: names matched by name when all are among `own`, else by position, as the runtimes do.

    Raises:
        PassError: the signature names outputs that the model doesn't have.
    """
    graph = model.graph
    wanted = signature.output_names
    if not set(wanted) <= set(own) and len(wanted) != len(own):
        raise PassError(f"export: signature.outputs {wanted} don't match the model's outputs {own}")
    picks = [own.index(name) for name in wanted] if set(wanted) <= set(own) else range(len(own))
    values = [graph.output[index] for index in picks]
    taken = value_names(model)
    chosen = [_fitted(graph, value, spec, taken) for value, spec in zip(values, signature.outputs, strict=True)]
    del graph.output[:]
    graph.output.extend(chosen)
    rename_outputs(model, wanted)
    set_shapes(model, signature)


def _fitted(
    graph: onnx.GraphProto, value: onnx.ValueInfoProto, spec: TensorSpec, taken: set[str]
) -> onnx.ValueInfoProto:
    """Append the nodes that turn a value into the dtype and rank of its spec."""
    name, kind = value.name, value.type.tensor_type
    if kind.elem_type != element_type(spec):
        cast = free_name(f"{name}_cast", taken)
        graph.node.append(helper.make_node("Cast", [name], [cast], to=element_type(spec)))
        name = cast
    rank = len(kind.shape.dim) if kind.HasField("shape") else None
    if rank != len(spec.shape) and len(spec.shape) <= 2:
        shape, flat = free_name(f"{name}_{FLAT}", taken), free_name(f"{name}_flat", taken)
        sizes = [-1, *(axis for axis in spec.shape[1:] if isinstance(axis, int))]
        graph.node.append(helper.make_node("Constant", [], [shape], value_ints=sizes))
        graph.node.append(helper.make_node("Reshape", [name, shape], [flat]))
        name = flat
    return helper.make_tensor_value_info(name, element_type(spec), list(spec.shape))


def set_shapes(model: onnx.ModelProto, signature: Signature) -> None:
    """Write the signature's shapes on the graph's inputs and outputs, so that dynamic axes carry its names.

    Raises:
        PassError: the graph lacks an input, or has a fixed size where the signature has a dynamic axis.
    """
    graph = model.graph
    found = {value.name: value for value in graph.input}
    for spec in signature.inputs:
        if spec.name not in found:
            raise PassError(f"export: the graph has no input '{spec.name}', it has {sorted(found)}")
        _check_dynamic(found[spec.name], spec)
    for values, specs in ((graph.input, signature.inputs), (graph.output, signature.outputs)):
        del values[:]
        values.extend(value_info(spec) for spec in specs)


def _check_dynamic(value: onnx.ValueInfoProto, spec: TensorSpec) -> None:
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(spec.shape):
        raise PassError(f"export: input '{spec.name}' has {len(dims)} axes in the graph, expected {spec.describe()}")
    for position, (dim, axis) in enumerate(zip(dims, spec.shape, strict=True)):
        if isinstance(axis, str) and dim.HasField("dim_value"):
            raise PassError(
                f"export: axis {position} ('{axis}') of input '{spec.name}' is fixed to {dim.dim_value} in the model; "
                "give it that size in the signature"
            )


def merge_opsets(model: onnx.ModelProto) -> int:
    """List each operator set once, as its highest version; return the version of the default set."""
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        versions[entry.domain] = max(entry.version, versions.get(entry.domain, 0))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, number) for domain, number in versions.items())
    return versions.get("", 0)
