"""Fusion of `nn.MultiheadAttention` and torch's own encoder layers, exported as Hone exports them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hone.signature import Signature, TensorSpec
from tests.passes import Bench, details

torch = pytest.importorskip("torch")

from tests.models.attention import HEADS, LENGTH, WIDTH, Encoder  # noqa: E402 - torch is optional


def exported(network: Any, file: Path, length: bool) -> onnx.ModelProto:
    """Return a graph with biases that are not zero and, where asked for, a dynamic length."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    example = (torch.randn(3, LENGTH, WIDTH), torch.ones(3, LENGTH))
    axes = {0: torch.export.Dim("batch"), **({1: torch.export.Dim("length")} if length else {})}
    program = torch.onnx.export(
        network.eval(),
        example,
        input_names=["x", "keep"],
        output_names=["y"],
        dynamic_shapes=(axes, axes),
        opset_version=20,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    program.save(file, external_data=False)
    return onnx.load(file)


def rows(count: int, length: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(count)
    keep = (generator.random((count, length)) < 0.6).astype(np.float32)
    keep[:, 0] = 1
    return {"x": generator.normal(size=(count, length, WIDTH)).astype(np.float32), "keep": keep}


def bench(folder: Path, length: int | str) -> Bench:
    signature = Signature(
        inputs=(
            TensorSpec(name="x", dtype="float32", shape=("batch", length, WIDTH)),
            TensorSpec(name="keep", dtype="float32", shape=("batch", length)),
        ),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", length, WIDTH)),),
    )
    return Bench(folder, signature, rows(4, LENGTH))


@pytest.mark.parametrize(
    ("weights", "mask"),
    [
        (True, "padding"),
        *(
            pytest.param(weights, mask, marks=pytest.mark.slow)
            for weights, mask in [(False, ""), (True, ""), (False, "padding"), (False, "causal"), (True, "causal")]
        ),
    ],
)
def test_packed_attention_is_fused_and_answers_the_same(tmp_path: Path, weights: bool, mask: str) -> None:
    dynamic = mask != "causal"
    found = bench(tmp_path, "length" if dynamic else LENGTH)
    source = found.artifact(exported(Encoder(weights, mask), tmp_path / "exported.onnx", dynamic))
    made = found.run("fuse", source)
    facts = details(made)
    assert facts["fused"]["attention"] == 2 and "attention_left_as_it_is" not in facts
    fused = [node for node in onnx.load(made.entry).graph.node if node.op_type == "MultiHeadAttention"]
    assert [onnx.helper.get_node_attr_value(node, "num_heads") for node in fused] == [HEADS, HEADS]
    for count, length in ((1, 1), (5, 2), (2, 11)) if dynamic else ((1, LENGTH), (5, LENGTH)):
        found.rows = rows(count, length)
        np.testing.assert_allclose(found.outputs(made)["y"], found.outputs(source)["y"], rtol=1e-4, atol=1e-4)


def test_encoder_with_relu_is_fused_and_says_what_it_has_not(tmp_path: Path) -> None:
    found = bench(tmp_path, "length")
    graph = exported(Encoder(activation=torch.nn.ReLU), tmp_path / "exported.onnx", True)
    facts = details(found.run("fuse", found.artifact(graph)))
    assert facts["fused"]["attention"] == 2
    assert facts["not_found"] == ["gelu"]


def test_attention_whose_weights_are_read_is_left_as_it_is(tmp_path: Path) -> None:
    class Both(Encoder):
        def forward(self, x: Any, keep: Any) -> Any:
            first = self.layers[0].attention
            y, weights = first(x, x, x, need_weights=True)
            return super().forward(y, keep) * weights.sum()

    found = bench(tmp_path, "length")
    made = found.run("fuse", found.artifact(exported(Both(), tmp_path / "exported.onnx", True)))
    assert details(made)["fused"]["attention"] == 2 and details(made)["attention_left_as_it_is"] == 1
