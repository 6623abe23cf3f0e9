"""Masks such as -1e9 in lower precisions: they are exact, and nothing else pays for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hone.artifact import Artifact
from hone.errors import PassError
from hone.signature import Signature, TensorSpec
from tests.passes import Bench, cosine, details

LENGTH, WIDTH = 12, 16

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="x", dtype="float32", shape=("batch", LENGTH, WIDTH)),
        TensorSpec(name="keep", dtype="float32", shape=("batch", 1, LENGTH)),
    ),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", LENGTH, WIDTH)),),
)


def rows(count: int = 64) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(2)
    keep = (generator.random((count, 1, LENGTH)) < 0.7).astype(np.float32)
    keep[..., 0] = 1
    return {"x": generator.normal(size=(count, LENGTH, WIDTH)).astype(np.float32), "keep": keep}


def attention(mask: float, idiom: str = "fill", *, read: bool = False, named: bool = True) -> onnx.ModelProto:
    """Return x -> softmax(masked q k) v, all weights constant.

    Args:
        mask: what masked scores become, or what is added to them.
        idiom: `fill` is masked_fill, `add` is scores + (1 - keep) * mask.
        read: the mask's constant is also a part of the output.
        named: nodes have names.
    """
    generator = np.random.default_rng(0)
    stored: dict[str, Any] = {
        f"block.{name}.weight": generator.normal(0, 0.4, (WIDTH, WIDTH)).astype(np.float32) for name in "qkv"
    }
    stored |= {"val_7": np.float32(mask), "val_8": np.float32(1), "val_9": np.float32(0.5)}
    plan: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("MatMul", ["x", "block.q.weight"], "q", {}),
        ("MatMul", ["x", "block.k.weight"], "k", {}),
        ("MatMul", ["x", "block.v.weight"], "v", {}),
        ("Transpose", ["k"], "kt", {"perm": [0, 2, 1]}),
        ("MatMul", ["q", "kt"], "scores", {}),
    ]
    if idiom == "fill":
        plan += [("Cast", ["keep"], "kept", {"to": TensorProto.BOOL})]
        plan += [("Where", ["kept", "scores", "val_7"], "masked", {})]
    else:
        plan += [("Sub", ["val_8", "keep"], "dropped", {}), ("Mul", ["dropped", "val_7"], "bias", {})]
        plan += [("Add", ["scores", "bias"], "masked", {})]
    plan += [("Softmax", ["masked"], "weights", {"axis": -1}), ("MatMul", ["weights", "v"], "mixed", {})]
    plan += [("Mul", ["mixed", "val_7" if read else "val_9"], "y", {})]
    nodes = [
        helper.make_node(kind, inputs, [output], name=f"node_{output}" if named else "", **options)
        for kind, inputs, output, options in plan
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, list(spec.shape)) for spec in SIGNATURE.inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", LENGTH, WIDTH])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def likeness(bench: Bench, made: Artifact, source: Artifact) -> float:
    a, b = bench.outputs(made)["y"], bench.outputs(source)["y"]
    return cosine(a.reshape(len(a), -1), b.reshape(len(b), -1))


@pytest.mark.parametrize("idiom", ["fill", "add"])
def test_mask_beyond_float16_is_clamped_and_said(tmp_path: Path, idiom: str) -> None:
    bench = Bench(tmp_path, SIGNATURE, rows())
    source = bench.artifact(attention(-1e9, idiom))
    made = bench.run("fp16", source)
    assert details(made)["masks_clamped"] == 1
    assert likeness(bench, made, source) > 0.9999


def test_infinite_mask_stays_infinite_in_float16(tmp_path: Path) -> None:
    bench = Bench(tmp_path, SIGNATURE, rows())
    source = bench.artifact(attention(-np.inf))
    made = bench.run("fp16", source)
    assert "masks_clamped" not in details(made)
    assert likeness(bench, made, source) > 0.9999


def test_constant_beyond_float16_that_is_no_mask_is_named_with_its_layer(tmp_path: Path) -> None:
    bench = Bench(tmp_path, SIGNATURE, rows())
    text = r"\('val_7'\) of Where 'node_masked', near layer 'block.[qk]', holds 1e\+09"
    with pytest.raises(PassError, match=text):
        bench.run("fp16", bench.artifact(attention(-1e9, read=True)))


@pytest.mark.parametrize(("mask", "idiom"), [(-1e9, "fill"), (-1e9, "add"), (-np.inf, "fill")])
@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_static_int8_is_as_good_with_a_mask_as_without(tmp_path: Path, mask: float, idiom: str, method: str) -> None:
    bench = Bench(tmp_path, SIGNATURE, rows())
    plain = bench.artifact(attention(0.0, "add"))
    masked = bench.artifact(attention(mask, idiom))
    without = likeness(bench, bench.run("quantize_static", plain, method=method), plain)
    made = bench.run("quantize_static", masked, method=method)
    assert likeness(bench, made, masked) > without - 0.003
    assert details(made)["by_operator"]["MatMul"] == 5
    assert details(made)["masking_left_in_float"] == (2 if idiom == "fill" else 3)


def test_masks_of_nodes_without_names_stay_in_float(tmp_path: Path) -> None:
    bench = Bench(tmp_path, SIGNATURE, rows())
    source = bench.artifact(attention(-1e9, named=False))
    assert likeness(bench, bench.run("quantize_static", source), source) > 0.99
