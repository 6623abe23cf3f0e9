"""What is found in graphs that ONNX Runtime runs: each kind in a model that has it, and not in one that doesn't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.artifact import Artifact
from hone.hardware import gpu_name
from hone.profiles.families import family
from hone.profiles.findings import Seen, find
from hone.profiles.findings.hosts import lacking
from hone.profiles.graph import Graph, Node
from hone.profiles.measure import profile
from hone.profiles.record import NodeShare, ProfileFinding
from tests.hone.profiles.graphs import WIDTH, artifact, asked, matrix
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench

FALLS_BACK = (
    "i = Unsqueeze (x, ends) q = QuantizeLinear (i, s, z) d = DequantizeLinear (q, s, z) "
    "v = DequantizeLinear (w, s, z) c = Conv (d, v) y = Squeeze (c, ends)"
)
"""A convolution of quantized weights and inputs, whose answer nothing quantizes: no integer kernel does that."""
QUANTIZED = {
    "w": np.random.default_rng(0).integers(-100, 100, (WIDTH, WIDTH, 1, 1)).astype(np.int8),
    "s": np.array(0.02, np.float32), "z": np.array(0, np.int8), "ends": np.array([2, 3]),
}  # fmt: skip
HEAD = "g (float[batch, 16] x) => (float[batch, 16] y)"
BODIES: dict[str, tuple[str, dict[str, np.ndarray]]] = {
    "float_kernel": (FALLS_BACK, QUANTIZED),
    "unfused": ("q = Transpose (k) a = MatMul (x, q) p = Softmax (a) y = MatMul (p, k)", {"k": matrix()}),
    "casts": ("a = Cast <to = 7> (x) b = Cast <to = 1> (a) y = Relu (b)", {}),
    "layout": (
        "a = Concat <axis = 1> (x, x) y = Slice (a, one, end, one)",
        {"one": np.array([1]), "end": np.array([17])},
    ),
}
"""Graphs by the kind of what there is to find in them."""


def kinds(made: Artifact, folder: Path, **options: Any) -> dict[str, ProfileFinding]:
    return {finding.kind: finding for finding in profile(asked(made, batch=4096, **options), folder).findings}


@pytest.fixture
def quantized(tmp_path: Path) -> Bench:
    return Bench(tmp_path, perceptron_signature(), perceptron_rows())


@pytest.mark.parametrize("kind", BODIES)
def test_kind_is_found_where_it_is(kind: str, tmp_path: Path) -> None:
    body, weights = BODIES[kind]
    found = kinds(artifact(tmp_path / "a", f"{HEAD} {{ {body} }}", weights, WIDTH, precision="int8"), tmp_path)
    assert kind in found, found
    assert found[kind].share is not None and 0 < found[kind].share <= 1
    assert found[kind].nodes


def test_float_graph_without_any_has_none(tmp_path: Path) -> None:
    made = artifact(tmp_path / "a", f"{HEAD} {{ a = MatMul (x, w) y = Relu (a) }}", {"w": matrix()}, WIDTH)
    assert set(kinds(made, tmp_path)) <= {"outside"}


def test_fallback_says_which_node_and_why(tmp_path: Path) -> None:
    body, weights = BODIES["float_kernel"]
    made = artifact(tmp_path / "a", f"{HEAD} {{ {body} }}", weights, WIDTH, precision="int8")
    found = kinds(made, tmp_path)["float_kernel"]
    assert found.nodes == ("conv_4",)
    assert found.what == (
        "1 node of quantized weights or inputs (Conv) computes in float: what follows (Squeeze) takes floats"
    )


def test_static_quantization_of_every_product_has_no_fallback(quantized: Bench, tmp_path: Path) -> None:
    whole = quantized.run("quantize_static", quantized.artifact(perceptron()))
    assert not {"float_kernel", "left_in_float"} & set(kinds(whole, tmp_path))


@pytest.mark.parametrize("name", ["quantize_static", "quantize_dynamic"])
def test_layer_that_the_recipe_leaves_out_is_named(quantized: Bench, tmp_path: Path, name: str) -> None:
    made = quantized.run(name, quantized.artifact(perceptron()), exclude=["second"])
    found = kinds(made, tmp_path)
    assert found["left_in_float"].nodes == ("second",)
    assert "float_kernel" not in found


def test_halves_that_the_cpu_computes_as_floats_are_told(quantized: Bench, tmp_path: Path) -> None:
    found = kinds(quantized.run("fp16", quantized.artifact(perceptron())), tmp_path)
    if gpu_name() is None:
        assert found["float_kernel"].what.endswith("of a model in fp16 compute in fp32")


def test_openvino_kernels_in_float_are_told(quantized: Bench, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    static = quantized.run("quantize_static", quantized.artifact(perceptron()), exclude=["second"])
    found = kinds(quantized.run("openvino", static), tmp_path, runs=30)
    assert found["float_kernel"].nodes == ("second",)
    assert "1 node of 3 (FullyConnected) of a model in int8 computes in float" in found["float_kernel"].what


GELU = "e = Div (x, r) f = Erf (e) g1 = Add (f, one) h = Mul (x, g1) y = Mul (h, half)"
NORM = (
    "m = ReduceMean <keepdims = 1> (x, axis) d = Sub (x, m) p = Pow (d, two) v = ReduceMean <keepdims = 1> (p, axis) "
    "a = Add (v, eps) s = Sqrt (a) y = Div (d, s)"
)
CONSTANTS = {
    "r": np.array(2**0.5, np.float32), "one": np.array(1, np.float32), "half": np.array(0.5, np.float32),
    "two": np.array(2, np.float32), "eps": np.array(1e-5, np.float32), "axis": np.array([-1], np.int64),
}  # fmt: skip


@pytest.mark.parametrize(("body", "words"), [(GELU, "GELU 1 time left as parts (Erf"), (NORM, "LayerNorm 1 time")])
def test_parts_are_found_when_optimizations_are_left_out(body: str, words: str, tmp_path: Path) -> None:
    used = {name: value for name, value in CONSTANTS.items() if f"{name})" in body or f"({name}" in body}
    whole = artifact(tmp_path / "a", f"{HEAD} {{ {body} }}", used, WIDTH)
    left_out = kinds(whole.with_manifest(runtime_options={"optimized": False}), tmp_path)
    assert words in left_out["unfused"].what
    assert "leaves ONNX Runtime's optimizations out" in left_out["unfused"].remedy
    if body == GELU:  # ONNX Runtime joins it by itself
        assert "unfused" not in kinds(whole, tmp_path)


def seen(*nodes: NodeShare, graph: Graph | None = None, **changes: Any) -> Seen:
    from hone.artifact import Manifest
    from hone.signature import Signature

    facts = {"name": "m", "runtime": "onnx", "precision": "fp32", "entry": "e", **changes.pop("manifest", {})}
    manifest = Manifest(signature=Signature(inputs=()), **facts)
    values: dict[str, Any] = {"host": {}, "lacks": (), "batch": 1, "outside": 0.0, **changes}
    return Seen(manifest, nodes, graph, **values)


def node(name: str, operator: str, share: float, where: str = "CPU", kernel: str = "") -> NodeShare:
    return NodeShare(name=name, operator=operator, where=where, kernel=kernel, ms=share, share=share, calls=1)


def test_convolution_whose_activation_cannot_be_joined_is_told() -> None:
    graph = Graph(
        [
            Node("c", "Conv", ("x", "w"), ("a",)),
            Node("r", "Relu", ("a",), ("b",)),
            Node("s", "Add", ("a", "b"), ("y",)),
        ],
        {"w": 1},
    )
    (found,) = find(seen(node("c", "Conv", 0.8), node("r", "Relu", 0.1), node("s", "Add", 0.1), graph=graph))
    assert (found.kind, found.nodes, found.share) == ("unfused", ("r",), 0.1)


def test_nodes_on_another_provider_and_copies_are_told() -> None:
    nodes = (
        node("a", "Conv", 0.5, "CUDA"),
        node("b", "NonZero", 0.3),
        node("c", "MemcpyToHost", 0.2, "CUDA"),
    )
    options = {"runtime_options": {"providers": ["CUDAExecutionProvider"]}}
    found = {one.kind: one for one in find(seen(*nodes, manifest=options))}
    assert found["moved"].what == "1 node (NonZero) not on CUDA, 1 copy between devices"
    assert found["moved"].share == pytest.approx(0.5)
    assert "moved" not in {one.kind for one in find(seen(*nodes))}


@pytest.mark.parametrize(
    ("features", "lacks"),
    [
        (["avx2"], ("AVX-512", "VNNI", "BF16", "AMX")),
        (["avx2", "avx_vnni"], ("AVX-512", "BF16", "AMX")),
        (["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"], ()),
        ([], ()),
    ],
)
def test_what_an_x86_processor_lacks(features: list[str], lacks: tuple[str, ...]) -> None:
    assert lacking({"machine": "x86_64", "cpu_features": features}) == lacks
    assert lacking({"machine": "aarch64", "cpu_features": ["asimddp"]}) == ()


@pytest.mark.parametrize(
    ("precision", "lacks", "told"),
    [("int8", ("VNNI", "AMX"), True), ("int8", ("AMX",), False), ("bf16", ("BF16",), True), ("fp32", ("VNNI",), False)],
)
def test_missing_instructions_are_a_finding_of_the_precision_that_wants_them(
    precision: str, lacks: tuple[str, ...], told: bool
) -> None:
    found = find(seen(node("a", "MatMul", 1.0), lacks=lacks, manifest={"precision": precision}))
    assert ("host" in {one.kind for one in found}) == told


def test_call_that_costs_more_than_its_operators_is_told() -> None:
    (found,) = find(seen(node("a", "Relu", 1.0), outside=0.6))
    assert "60% of a call is spent outside of operators" in found.line and "batches share it" in found.line


@pytest.mark.parametrize(
    ("operator", "name"),
    [
        ("DynamicQuantizeMatMul", "matrix products"), ("MatMulIntegerToFloat", "matrix products"),
        ("FullyConnected", "matrix products"), ("ConvTranspose", "convolutions"), ("QLinearConv", "convolutions"),
        ("DequantizeLinear", "quantizing"), ("FakeQuantize", "quantizing"), ("DynamicQuantizeLSTM", "recurrent layers"),
        ("SkipLayerNormalization", "normalization"), ("Transpose", "layout"), ("ReorderInput", "layout"),
        ("Convert", "casts"), ("Convolution", "convolutions"), ("QAttention", "attention"), ("TopK", "TopK"),
    ],
)  # fmt: skip
def test_operators_of_several_runtimes_are_of_one_family(operator: str, name: str) -> None:
    assert family(operator) == name
