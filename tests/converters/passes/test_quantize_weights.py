from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hone.converters.graph.embedding_tables import quantize_tables
from hone.errors import PassError, RecipeError
from hone.signature import Signature, TensorSpec
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.models.tables import embedding_bag
from tests.passes import Bench, cosine, details, operators


@pytest.mark.parametrize(("bits", "least"), [(8, 0.9999), (4, 0.98)])
def test_blocks_stay_close_to_float(tmp_path: Path, bits: int, least: float) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    source = bench.artifact(perceptron())
    made = bench.run("quantize_weights", source, bits=bits)
    assert operators(made).count("MatMulNBits") == 3
    assert details(made)["by_operator"] == {"MatMul": 3}
    assert made.manifest.precision == f"int{bits}"
    assert cosine(bench.outputs(made)["y"], bench.outputs(source)["y"]) > least


def test_algorithms_are_closer_than_rounding(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(256))
    source = bench.artifact(perceptron())
    wanted = bench.outputs(source)["y"]
    loss = {}
    for algorithm in ("nearest", "k_quant", "hqq", "gptq"):
        made = bench.run("quantize_weights", source, bits=4, algorithm=algorithm)
        assert operators(made).count("MatMulNBits") == 3
        loss[algorithm] = 1 - cosine(bench.outputs(made)["y"], wanted)
    assert loss["hqq"] < 0.9 * loss["nearest"]


def test_rows_are_needed_to_weigh_errors_by_them(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(), calibration=None)
    source = bench.artifact(perceptron())
    with pytest.raises(RecipeError, match="calibration: is required by this pass"):
        bench.run("quantize_weights", source, bits=4, algorithm="gptq")


@pytest.mark.parametrize("algorithm", ["nearest", "k_quant", "gptq"])
def test_excluded_layers_stay_in_float(tmp_path: Path, algorithm: str) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    source = bench.artifact(perceptron())
    made = bench.run("quantize_weights", source, bits=4, exclude=["second"], algorithm=algorithm)
    assert details(made)["left_in_float"] == ["second"]


@pytest.mark.parametrize("turned", [False, True])
def test_gemm_is_quantized_with_its_bias(tmp_path: Path, turned: bool) -> None:
    matrix = np.random.default_rng(0).normal(size=(32, 8)).astype(np.float32)
    bias = np.arange(8, dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="dense", transB=int(turned))],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(matrix.T.copy() if turned else matrix, "w"), numpy_helper.from_array(bias, "b")],
    )
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    made = bench.run("quantize_weights", bench.artifact(model))
    np.testing.assert_allclose(bench.outputs(made)["y"], bench.rows["x"] @ matrix + bias, atol=0.2)


def test_graph_without_matrices_is_refused(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"], name="relu")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
    )
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 8)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 8)),),
    )
    bench = Bench(tmp_path, signature, {"x": np.zeros((8, 8), np.float32)})
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    with pytest.raises(PassError, match="no MatMul with constant weights"):
        bench.run("quantize_weights", bench.artifact(model))


@pytest.mark.parametrize("name", ["quantize_weights", "quantize_dynamic"])
def test_each_row_of_a_table_has_its_own_scale(tmp_path: Path, name: str) -> None:
    model, signature = embedding_bag()
    ids = np.random.default_rng(1).integers(8, 100, (64, 3))
    bench = Bench(tmp_path, signature, {"ids": ids})
    source = bench.artifact(model)
    made = bench.run(name, source)
    stored = {tensor.name: tensor for tensor in onnx.load(made.entry).graph.initializer}
    assert stored["table_int8"].data_type == TensorProto.INT8 and "table" not in stored
    assert details(made)["by_operator"]["Gather"] == 1
    # With one scale for the whole table, set by its largest row, these rows would be a few steps high.
    assert cosine(bench.outputs(made)["y"], bench.outputs(source)["y"]) > 0.999


def test_a_table_of_four_bits_has_a_scale_for_each_block(tmp_path: Path) -> None:
    model, signature = embedding_bag()
    bench = Bench(tmp_path, signature, {"ids": np.random.default_rng(1).integers(0, 100, (64, 3))})
    source = bench.artifact(model)
    made = bench.run("quantize_weights", source, table_bits=4)
    graph = onnx.load(made.entry).graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    assert (stored["table_int4"].data_type, len(stored["table_int4"].raw_data)) == (TensorProto.INT4, 100 * 32 // 2)
    assert details(made)["by_operator"] == {"Gather": 1, "MatMul": 1}
    assert cosine(bench.outputs(made)["y"], bench.outputs(source)["y"]) > 0.99


def test_a_table_that_does_not_divide_into_blocks_has_eight_bits() -> None:
    table = numpy_helper.from_array(np.ones((100, 40), np.float32), "table")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["y"], name="lookup")], "g", [], [], [table]
    )
    model = helper.make_model(graph)
    assert quantize_tables(model, bits=4) == ["lookup"]
    assert {tensor.name for tensor in model.graph.initializer} == {"table_int8", "table_scales"}


QUIET = """
import sys
from pathlib import Path
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench

bench = Bench(Path(sys.argv[1]), perceptron_signature(), perceptron_rows())
bench.run("quantize_weights", bench.artifact(perceptron()), bits=4, algorithm="gptq")
"""


def test_the_quantizer_says_nothing_even_where_it_is_imported_first(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUIET, str(tmp_path)], capture_output=True, text=True, check=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("", "")
