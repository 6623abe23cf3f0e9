"""Compute real tokens only, where texts of several lengths share a batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from pydantic import Field

from hone.artifact import Artifact
from hone.errors import PassError, one_line
from hone.signature import BATCH, Signature, Tensors, TensorSpec

from ...context import Built, PassContext
from ...graph.execution import Shape, cpu_session, shapes_met
from ...graph.onnx_graph import load_graph, save_with_shapes
from ...graph.real_tokens import skip_padding as skip
from ...registry import PassOptions, register

NAME = "attention_mask"
SIZES = ((3, 7), (5, 11))
"""Rows and tokens of two runs that show which axes are which."""

CLOSE = 1e-3
"""Of the largest value: what answers may differ by, as sums are taken in another order."""


class Options(PassOptions):
    """For models of texts: layers that take each token alone leave out padding. Pays where lengths differ in a batch.

    The answers stay. Put it behind simplify, and before openvino or a pass that quantizes.
    """

    mask: str = Field(
        "auto",
        description=f"Input that is 0 where a token is padding; auto: `{NAME}`, or the only one with such a name.",
    )
    multiple: int = Field(
        8,
        ge=1,
        le=1024,
        description="Tokens of a batch are filled up to a multiple of this: kernels are made for each size anew.",
    )


@register(
    "skip_padding",
    consumes="onnx",
    produces="onnx",
    options=Options,
    needs=("sample",),
    tools=("onnxruntime", "onnx"),
)
def skip_padding(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Let matrix products, normalizations and what lies between them run on the tokens that the mask leaves in, as one
    row ('unpadding', Zeng et al. 2022, 'Boosting Distributed Training Performance of the Unpadded BERT Model').

    Raises PassError when the graph has no mask or no such layers, or when its answers depend on padding.
    """
    before = load_graph(model.entry)
    mask = _mask(model.signature, options.mask)
    after = load_graph(model.entry)
    packed = skip(after, mask, options.multiple, _shapes(before, model.signature, mask, context.sample.inputs))
    if not packed:
        raise PassError(
            f"skip_padding: {model.entry.name} has no matrix product with weights on [batch, tokens, features]; "
            "leave skip_padding out"
        )
    save_with_shapes(after, out / "model.onnx")
    context.progress("comparing answers to padded rows")
    difference = _difference(model.entry, out / "model.onnx", _padded(context.sample.inputs, mask))
    if not difference <= CLOSE:
        raise PassError(
            f"skip_padding: an answer depends on padding: rows that differ there only differ by {difference:.2g} of "
            "the largest value; leave skip_padding out"
        )
    products = sum(node.op_type == "MatMul" for node in before.graph.node)
    facts = {"mask": mask, "products_on_real_tokens": packed, "products": products, "difference": difference}
    return Built("model.onnx", details=facts)


def _mask(signature: Signature, wanted: str) -> str:
    """Return the name of the input that says which tokens are real.

    Raises:
        PassError: there is none, or it can't be told.
    """
    masks = masks_of(signature)
    if wanted != "auto" and any(spec.name == wanted and len(spec.shape) == 2 for spec in signature.inputs):
        return wanted
    if wanted == "auto" and len(masks) == 1:
        return masks[0]
    names = ", ".join(f"'{spec.name}'" for spec in signature.inputs)
    looked_for = "one that is a mask" if wanted == "auto" else f"'{wanted}' of shape [batch, sequence]"
    raise PassError(
        f"skip_padding: mask: of the inputs {names} none is {looked_for}; name it, or leave skip_padding out"
    )


def masks_of(signature: Signature) -> list[str]:
    """Return the inputs that may say which tokens are real: one alone where it has the name that it usually has."""
    found = [spec.name for spec in signature.inputs if _may_be_mask(spec)]
    return [NAME] if NAME in found else found


def _may_be_mask(spec: TensorSpec) -> bool:
    return "mask" in spec.name.lower() and len(spec.shape) == 2 and spec.batchable


def _shapes(graph: onnx.ModelProto, signature: Signature, mask: str, rows: Tensors) -> dict[str, Shape]:
    """Return the shapes of a graph's values, as rows of two lengths in batches of two sizes show them.

    Raises:
        PassError: the graph can't be run.
    """
    axes = {spec.name: spec.shape for spec in signature.inputs}
    tokens = axes[mask][1]
    given = []
    for count, length in SIZES:
        sizes = {BATCH: count} | ({tokens: length} if isinstance(tokens, str) else {})
        given.append({name: _of_size(values, axes[name], sizes) for name, values in rows.items()})
    try:
        return shapes_met(graph, *given)
    except Exception as error:
        raise PassError(f"skip_padding: the graph fails on the sample rows: {one_line(error)}") from error


def _of_size(values: np.ndarray, axes: tuple[int | str, ...], sizes: dict[str, int]) -> np.ndarray:
    """Return values cut along named axes, or repeated where there are too few."""
    for number, axis in enumerate(axes):
        if axis in sizes:
            values = np.take(values, np.arange(sizes[str(axis)]) % values.shape[number], axis=number)
    return values


def _padded(rows: Tensors, mask: str) -> Tensors:
    """Return rows whose last tokens are padding, each with another number of them, and at least one real token."""
    kept = rows[mask].copy()
    for row in range(len(kept)):
        real = np.flatnonzero(kept[row])
        kept[row, real[max(1, len(real) - 1 - row) :]] = 0
    return {**rows, mask: kept}


def _difference(before: Path, after: Path, rows: Tensors) -> float:
    """Return how far answers of two graphs are apart, as a share of the largest value of an output."""
    try:
        pairs = list(zip(*(cpu_session(graph).run(None, rows) for graph in (before, after)), strict=True))
    except Exception as error:
        raise PassError(f"skip_padding: the graph fails on the sample rows: {one_line(error)}") from error
    return max(float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-9)) for a, b in pairs if a.size)
