"""Fusion on what torch's exporter really writes today."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from hone.converters.graph.onnx_graph import rename_outputs
from hone.errors import PassError
from hone.signature import Signature, TensorSpec
from tests.later import later
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench, details

torch = later("torch")
ROOT = Path(__file__).parents[3]


def forecaster(file: Path, dynamic: bool = True) -> onnx.ModelProto:
    """Return a two-layer transformer (normalization first, torch's own attention) as the exporter writes it."""
    sys.path.insert(0, str(ROOT / "examples" / "forecast"))
    try:
        sys.modules.pop("model", None)
        import model as forecast
    finally:
        sys.path.pop(0)
        sys.modules.pop("model", None)
    torch.manual_seed(0)
    network = forecast.Transformer(width=32, heads=2, layers=2).eval()
    example = torch.zeros(2, 104)
    program = torch.onnx.export(
        network,
        (example,),
        input_names=["history"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=20,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    program.save(file, external_data=False)
    graph = onnx.load(file)
    rename_outputs(graph, ["forecast"])
    return graph


SIGNATURE = Signature(
    inputs=(TensorSpec(name="history", dtype="float32", shape=("batch", 104)),),
    outputs=(TensorSpec(name="forecast", dtype="float32", shape=("batch", 13)),),
)


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return forecaster(tmp_path_factory.mktemp("export") / "model.onnx")


def test_every_layer_of_a_transformer_is_fused_and_answers_the_same(tmp_path: Path, graph: onnx.ModelProto) -> None:
    rows = {"history": np.random.default_rng(0).normal(size=(8, 104)).astype(np.float32)}
    bench = Bench(tmp_path, SIGNATURE, rows)
    source = bench.artifact(graph)
    made = bench.run("fuse", source)
    facts = details(made)
    assert facts["fused"]["attention"] == 2 and facts["fused"]["gelu"] == 2
    assert facts["fused"]["skip_layer_norm"] >= 3
    assert facts["nodes_after"] < facts["nodes_before"]
    np.testing.assert_allclose(bench.outputs(made)["forecast"], bench.outputs(source)["forecast"], rtol=1e-3, atol=1e-4)


def test_fused_graph_can_be_quantized(tmp_path: Path, graph: onnx.ModelProto) -> None:
    rows = {"history": np.random.default_rng(0).normal(size=(64, 104)).astype(np.float32)}
    bench = Bench(tmp_path, SIGNATURE, rows)
    source = bench.artifact(graph)
    fused = bench.run("fuse", source)
    wanted = bench.outputs(source)["forecast"]
    for name in ("quantize_dynamic", "quantize_weights"):
        made = bench.run(name, fused)
        assert details(made)["by_operator"]["MatMul"] >= 8
        assert np.abs(bench.outputs(made)["forecast"] - wanted).mean() < 0.1 * np.abs(wanted).mean()


def test_fusion_that_is_asked_for_and_not_found_is_an_error(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    source = bench.artifact(perceptron(normalized=True))
    with pytest.raises(PassError, match=r"found no attention and no gelu.*3 layer_norm"):
        bench.run("fuse", source, require=["attention", "layer_norm", "gelu"])
    made = bench.run("fuse", source, require=["layer_norm"])
    assert details(made)["fused"]["layer_norm"] == 3


def test_graph_with_nothing_to_fuse_is_an_error(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    with pytest.raises(PassError, match=r"nothing to fuse in model.onnx \(it has: 3 layer_norm\)"):
        bench.run("fuse", bench.artifact(perceptron(normalized=True)))
