"""The ONNX operators that move, select and reduce values, in MLX; `ops.py` tells how values are kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from hone.runtimes.mlx.ops import DTYPES, OPERATORS, Attributes, Value, device, integers, known, library, operator


@operator("Identity", "Dropout")
def identity(_: Attributes, x: Value, *__: Value) -> Value:
    return x


@operator("Constant")
def constant(attributes: Attributes) -> Value:
    return np.asarray(attributes["value"])


@operator("Shape")
def shape(attributes: Attributes, x: Value) -> Value:
    return np.array(x.shape, dtype=np.int64)[attributes.get("start", 0) : attributes.get("end")]


@operator("ConstantOfShape")
def constant_of_shape(attributes: Attributes, sizes: Value) -> Value:
    value = np.asarray(attributes.get("value", [0.0]))
    return np.full(integers(sizes), value.reshape(-1)[0], dtype=value.dtype)


@operator("Range")
def make_range(_: Attributes, start: Value, limit: Value, delta: Value) -> Value:
    return np.arange(start.item(), limit.item(), delta.item(), dtype=start.dtype)


@operator("Cast")
def cast(attributes: Attributes, x: Value) -> Value:
    name = DTYPES[attributes["to"]]
    if known(x):
        return x.astype(name)
    import mlx.core as mx

    return x.astype(mx.bool_ if name == "bool" else getattr(mx, name))


@operator("Flatten")
def flatten(attributes: Attributes, x: Value) -> Value:
    axis = attributes.get("axis", 1) % (x.ndim + 1)
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


@operator("Reshape")
def reshape(attributes: Attributes, x: Value, sizes: Value) -> Value:
    wanted = integers(sizes)
    if not attributes.get("allowzero"):
        wanted = [x.shape[index] if size == 0 else size for index, size in enumerate(wanted)]
    return x.reshape(wanted)


@operator("Transpose")
def transpose(attributes: Attributes, x: Value) -> Value:
    return x.transpose(attributes.get("perm") or list(range(x.ndim))[::-1])


@operator("Squeeze")
def squeeze(attributes: Attributes, x: Value, axes: Value = None) -> Value:
    chosen = integers(axes) if axes is not None else attributes.get("axes")
    return library(x).squeeze(x, axis=tuple(chosen) if chosen is not None else None)


@operator("Unsqueeze")
def unsqueeze(attributes: Attributes, x: Value, axes: Value = None) -> Value:
    chosen = integers(axes) if axes is not None else attributes["axes"]
    return library(x).expand_dims(x, axis=tuple(chosen))


@operator("Concat")
def concat(attributes: Attributes, *values: Value) -> Value:
    if known(*values):
        return np.concatenate(values, axis=attributes["axis"])
    import mlx.core as mx

    return mx.concatenate([device(value) for value in values], axis=attributes["axis"])


@operator("Split")
def split(attributes: Attributes, x: Value, sizes: Value = None) -> Any:
    """Return a list: one value an output."""
    axis = attributes.get("axis", 0)
    lengths = integers(sizes) if sizes is not None else attributes.get("split")
    if lengths is None:
        count = attributes["num_outputs"]
        step = -(-x.shape[axis] // count)
        lengths = [min(step, x.shape[axis] - step * index) for index in range(count)]
    return list(library(x).split(x, np.cumsum(lengths)[:-1].tolist(), axis=axis))


@operator("Slice")
def slice_values(_: Attributes, x: Value, starts: Value, ends: Value, axes: Value = None, steps: Value = None) -> Value:
    begin, stop = integers(starts), integers(ends)
    chosen = integers(axes) if axes is not None else list(range(len(begin)))
    strides = integers(steps) if steps is not None else [1] * len(begin)
    index: list[slice] = [slice(None)] * x.ndim
    for low, high, axis, step in zip(begin, stop, chosen, strides, strict=True):
        # Going backwards, an end before the first element means "through the first".
        end = None if step < 0 and high < -x.shape[axis] else high
        index[axis] = slice(low, end, step)
    return x[tuple(index)]


@operator("Gather")
def gather(attributes: Attributes, x: Value, indices: Value) -> Value:
    axis = attributes.get("axis", 0)
    if known(x, indices):
        return np.take(x, indices, axis=axis)
    import mlx.core as mx

    positions = device(indices)
    return mx.take(device(x), mx.where(positions < 0, positions + x.shape[axis], positions), axis=axis)


@operator("Expand")
def expand(_: Attributes, x: Value, sizes: Value) -> Value:
    wanted = np.broadcast_shapes(tuple(x.shape), tuple(integers(sizes)))
    return library(x).broadcast_to(x, wanted)


@operator("Tile")
def tile(_: Attributes, x: Value, repeats: Value) -> Value:
    return library(x).tile(x, integers(repeats))


@operator("Pad")
def pad(attributes: Attributes, x: Value, pads: Value, value: Value = None, axes: Value = None) -> Value:
    if attributes.get("mode", "constant") != "constant":
        raise ValueError(f"mode '{attributes['mode']}' is not supported, only 'constant'")
    amounts = integers(pads)
    chosen = integers(axes) if axes is not None else list(range(x.ndim))
    widths = [(0, 0)] * x.ndim
    for position, axis in enumerate(chosen):
        widths[axis] = (amounts[position], amounts[position + len(chosen)])
    fill = 0 if value is None else np.asarray(value).item()
    return library(x).pad(x, widths, constant_values=fill)


@operator("ArgMax")
def arg_max(attributes: Attributes, x: Value) -> Value:
    axis, keep = attributes.get("axis", 0), bool(attributes.get("keepdims", 1))
    lib = library(x)
    result = lib.argmax(x, axis=axis, keepdims=keep)
    return result.astype(np.int64 if lib is np else lib.int64)


def _reduction(name: str, method: str) -> None:
    def apply(attributes: Attributes, x: Value, axes: Value = None) -> Value:
        chosen = integers(axes) if axes is not None else attributes.get("axes")
        if not chosen and attributes.get("noop_with_empty_axes"):
            return x
        axis = tuple(chosen) if chosen else None
        return getattr(library(x), method)(x, axis=axis, keepdims=bool(attributes.get("keepdims", 1)))

    OPERATORS[name] = apply


for _name, _method in (("ReduceMean", "mean"), ("ReduceSum", "sum"), ("ReduceMax", "max"), ("ReduceMin", "min"),
                       ("ReduceProd", "prod")):  # fmt: skip
    _reduction(_name, _method)
