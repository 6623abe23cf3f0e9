"""Texts of several lengths in a batch: layers that take each token alone compute the real ones, and answers stay."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from hone import runtimes
from hone.artifact import Artifact
from hone.errors import PassError
from hone.signature import Signature, TensorSpec
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench, details, operators

WIDTH, WORDS, LENGTH = 8, 20, 12
TEXTS = """
<ir_version: 10, opset_import: ["" : 20]>
texts (int64[batch, sequence] ids, int64[batch, sequence] attention_mask) => (float[batch, %s] y)
    <float[20, 8] words, float[8, 8] wq, float[8, 8] wk, float[8, 8] wv, float[8, 8] wo, float[8] bias,
     float one = {1.0}, float large = {10000.0}, int64[1] last = {2}, int64[1] tokens = {1}>
{
    x = Gather (words, ids)
    mask = Cast <to: int = 1> (attention_mask)
    less = Sub (mask, one)
    low = Mul (less, large)
    low_for_keys = Unsqueeze (low, tokens)
    q = MatMul (x, wq)
    k = MatMul (x, wk)
    v = MatMul (x, wv)
    turned = Transpose <perm = [0, 2, 1]> (k)
    scores = MatMul (q, turned)
    masked = Add (scores, low_for_keys)
    shares = Softmax <axis = -1> (masked)
    mixed = MatMul (shares, v)
    out = MatMul (mixed, wo)
    shifted = Add (out, bias)
    joined = Add (shifted, x)
    last_states = Relu (joined)
    %s
}
"""
MEAN = """weights = Unsqueeze (mask, last)
    left = Mul (last_states, weights)
    summed = ReduceSum <keepdims = 0> (left, tokens)
    count = ReduceSum <keepdims = 1> (mask, tokens)
    some = Max (count, one)
    y = Div (summed, some)"""
OF_ALL_TOKENS = "y = Identity (last_states)"
SIGNATURE = Signature(
    inputs=tuple(
        TensorSpec(name=name, dtype="int64", shape=("batch", "sequence")) for name in ("ids", "attention_mask")
    ),
    outputs=(TensorSpec(name="y", shape=("batch", WIDTH)),),
)


def texts(end: str = MEAN, shape: str = "8") -> onnx.ModelProto:
    """Return a model of one attention layer: tokens to the mean of the real ones, or what else `end` says."""
    model = onnx.parser.parse_model(TEXTS % (shape, end))
    generator = np.random.default_rng(1)
    sizes = {"words": (WORDS, WIDTH), "bias": (WIDTH,), **dict.fromkeys(("wq", "wk", "wv", "wo"), (WIDTH, WIDTH))}
    for name, size in sizes.items():
        values = generator.normal(size=size).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def rows() -> dict[str, np.ndarray]:
    """Return texts of several lengths: padded behind, before, and one without any token."""
    generator = np.random.default_rng(2)
    lengths = np.array([12, 3, 7, 1, 12, 5, 0, 9, 4, 2])
    mask = (np.arange(LENGTH) < lengths[:, None]).astype(np.int64)
    mask[2] = mask[2, ::-1]
    return {"ids": generator.integers(0, WORDS, mask.shape), "attention_mask": mask}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, SIGNATURE, rows(), quality={"metric": "cosine"})


def run(bench: Bench, model: onnx.ModelProto | None = None, **options: Any) -> tuple[Artifact, Artifact]:
    """Return a model as `simplify` gives it, with shapes, and what the pass makes of it."""
    simple = bench.run("simplify", bench.artifact(model or texts()))
    return simple, bench.run("skip_padding", simple, **options)


def sizes(artifact: Artifact, given: dict[str, np.ndarray], kind: str) -> list[tuple[int, ...]]:
    """Return the shapes of what operators of a kind give for some rows."""
    model = onnx.load(artifact.entry)
    names = [node.output[0] for node in model.graph.node if node.op_type == kind]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [array.shape for array in session.run(names, given)]


@pytest.mark.parametrize("multiple", [1, 16])
def test_answers_stay_and_products_run_on_real_tokens(bench: Bench, multiple: int) -> None:
    simple, made = run(bench, multiple=multiple)
    np.testing.assert_allclose(bench.outputs(made)["y"], bench.outputs(simple)["y"], rtol=1e-5, atol=1e-6)
    real = int(bench.rows["attention_mask"].sum())
    tokens = -(-real // multiple) * multiple
    assert sizes(made, bench.rows, "MatMul").count((1, tokens, WIDTH)) == 4
    assert sizes(made, bench.rows, "Relu") == [(1, tokens, WIDTH)]
    # Scores and what they weigh stay side by side, row by row.
    assert sizes(made, bench.rows, "Softmax") == [(10, LENGTH, LENGTH)]
    facts = details(made)
    assert (facts["mask"], facts["products_on_real_tokens"], facts["products"]) == ("attention_mask", 4, 6)


def test_a_batch_of_any_size_and_one_without_a_token_are_answered(bench: Bench) -> None:
    simple, made = run(bench)
    plain, packed = runtimes.load(simple, 1), runtimes.load(made, 1)
    for part in (slice(0, 1), slice(1, 4), slice(6, 7)):
        given = {name: values[part] for name, values in bench.rows.items()}
        np.testing.assert_allclose(packed.run(given)["y"], plain.run(given)["y"], rtol=1e-5, atol=1e-6)


@pytest.mark.skipif(not runtimes.runtime_class("openvino").availability().usable, reason="needs OpenVINO")
def test_openvino_answers_the_same(bench: Bench) -> None:
    simple, made = run(bench)
    there = bench.outputs(bench.run("openvino", made))["y"]
    np.testing.assert_allclose(there, bench.outputs(simple)["y"], rtol=1e-4, atol=1e-5)


def test_a_mask_of_booleans_of_another_name_is_found(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(onnx.printer.to_text(texts()).replace("attention_mask", "mask_of_text"))
    model.graph.input[1].type.tensor_type.elem_type = onnx.TensorProto.BOOL
    given = rows()
    given["mask_of_text"] = given.pop("attention_mask").astype(bool)
    inputs = (SIGNATURE.inputs[0], TensorSpec(name="mask_of_text", dtype="bool", shape=("batch", "sequence")))
    bench = Bench(tmp_path, Signature(inputs=inputs, outputs=SIGNATURE.outputs), given)
    simple, made = run(bench, model)
    assert details(made)["mask"] == "mask_of_text" and "NonZero" in operators(made)
    np.testing.assert_allclose(bench.outputs(made)["y"], bench.outputs(simple)["y"], rtol=1e-5, atol=1e-6)


def test_answers_that_depend_on_padding_are_refused(tmp_path: Path) -> None:
    outputs = (TensorSpec(name="y", shape=("batch", "sequence", WIDTH)),)
    bench = Bench(tmp_path, Signature(inputs=SIGNATURE.inputs, outputs=outputs), rows())
    with pytest.raises(PassError, match=r"an answer depends on padding: .* leave skip_padding out"):
        run(bench, texts(OF_ALL_TOKENS, "sequence, 8"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mask": "atention_mask"}, "of the inputs 'ids', 'attention_mask' none is 'atention_mask' of shape"),
        ({"mask": "auto"}, "of the inputs 'x' none is one that is a mask; name it, or leave skip_padding out"),
    ],
)
def test_a_mask_that_is_not_there_is_named(tmp_path: Path, bench: Bench, options: dict[str, str], said: str) -> None:
    with pytest.raises(PassError, match=said):
        if options["mask"] == "auto":
            (tmp_path / "other").mkdir()
            other = Bench(tmp_path / "other", perceptron_signature(), perceptron_rows())
            other.run("skip_padding", other.artifact(perceptron()))
        else:
            run(bench, None, **options)


def test_a_graph_without_products_by_token_is_refused(tmp_path: Path) -> None:
    text = """
    <ir_version: 10, opset_import: ["" : 20]>
    few (int64[batch, sequence] attention_mask) => (float[batch, sequence] y) {
        y = Cast <to: int = 1> (attention_mask)
    }
    """
    outputs = (TensorSpec(name="y", shape=("batch", "sequence")),)
    given = {"attention_mask": rows()["attention_mask"]}
    bench = Bench(tmp_path, Signature(inputs=SIGNATURE.inputs[1:], outputs=outputs), given)
    with pytest.raises(PassError, match="no matrix product with weights on"):
        bench.run("skip_padding", bench.artifact(onnx.parser.parse_model(text)))
