"""Profiles of small models, by the runtimes' own profilers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone import runtimes
from hone.artifact import Artifact
from hone.errors import HoneError, UnavailableError
from hone.profiles.graph import read_graph
from hone.profiles.measure import profile
from hone.profiles.rows import batch_of
from hone.profiles.writing import take_and_write
from hone.runtimes.torch.profiling import profile as torch_profile
from hone.runtimes.trace import Call, traced
from tests.hone.profiles.graphs import WIDTH, artifact, asked, matrix
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench

LAYERS = {"first", "second", "third"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), perceptron_signature(), perceptron_rows())


@pytest.fixture(scope="module")
def plain(bench: Bench) -> Artifact:
    return bench.artifact(perceptron())


def events(folder: Path) -> list[dict[str, Any]]:
    content = json.loads((folder / "trace.json").read_text())
    return content["traceEvents"] if isinstance(content, dict) else content


def test_onnx_runtime_names_every_layer_and_its_time(plain: Artifact, tmp_path: Path) -> None:
    found = take_and_write(asked(plain, batch=512), out := tmp_path / "out")
    assert {node.name for node in found.nodes} == {*LAYERS, "first_relu", "second_relu"}
    assert {node.where for node in found.nodes} == {"CPU"}
    assert {one.operator: one.nodes for one in found.operators} == {"MatMul": 3, "Relu": 2}
    assert sum(node.share for node in found.nodes) == pytest.approx(1)
    assert sum(one.ms for one in found.operators) + found.outside_ms == pytest.approx(found.plain_ms)
    assert found.rows_from.startswith("random rows") and found.shapes == {"x": (512, 32)}
    kernels = [event for event in events(out) if event["name"] == "first_kernel_time"]
    assert len(kernels) == found.runs + 2 and all(event["ph"] == "X" for event in kernels)
    assert sorted(path.name for path in out.iterdir()) == ["optimized.onnx", "profile.json", "trace.json"]
    assert json.loads((out / "profile.json").read_text())["kind"] == "profile"


@pytest.mark.parametrize(("passes", "package"), [(("openvino",), "openvino"), (("mlx",), "mlx")])
def test_other_runtimes_tell_theirs(
    bench: Bench, plain: Artifact, passes: tuple[str, ...], package: str, tmp_path: Path
) -> None:
    pytest.importorskip(package)
    made = plain
    for name in passes:
        made = bench.run(name, made)
    found = profile(asked(made, runs=30), tmp_path)
    products = [node for node in found.nodes if node.operator in ("FullyConnected", "MatMul")]
    assert len(products) == 3 and {"first", "second"} <= {node.name for node in products}
    assert {event["name"] for event in events(tmp_path)} == {node.name for node in found.nodes}


@pytest.mark.slow
def test_torch_tells_operators(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    layer, row = torch.nn.Linear(8, 4), torch.ones(2, 8)
    found = torch_profile(lambda: layer(row), 3, tmp_path)
    assert "addmm" in {node.operator for node in found.nodes} and len(found.run_seconds) == 3
    assert [node.calls for node in found.nodes if node.operator == "addmm"] == [1]
    assert events(tmp_path)


def test_a_graph_inside_a_node_counts_once(tmp_path: Path) -> None:
    graph = """g (float[batch, 16] x) => (float[batch, 16] y) {
        yes = Constant <value = bool {1}> ()
        size = Shape (x)
        big = ReduceMax <keepdims = 0> (size)
        none = Constant <value = int64 {0}> ()
        more = Greater (big, none)
        y = If (more) <
          then_branch = a () => (float[batch, 16] t) { t1 = MatMul (x, w) t = Softmax (t1) },
          else_branch = b () => (float[batch, 16] e) { e = Identity (x) }
        >
    }"""
    found = profile(asked(artifact(tmp_path / "a", graph, {"w": matrix()}, WIDTH), batch=4096), tmp_path)
    shares = {one.operator: one.share for one in found.operators}
    assert {"MatMul", "Softmax", "If"} <= set(shares) and shares["MatMul"] > 0
    assert sum(shares.values()) == pytest.approx(1)


def test_rows_in_parts_count_as_one_run(tmp_path: Path) -> None:
    graph = "g (float[2, 16] x) => (float[2, 16] y) { y = MatMul (x, w) }"
    found = profile(asked(artifact(tmp_path / "a", graph, {"w": matrix()}, WIDTH), batch=6), tmp_path)
    assert [node.calls for node in found.nodes] == [3]


def test_one_disturbed_run_changes_nothing() -> None:
    calls = [Call("a", "Add", "CPU", "", seconds) for seconds in (1.0, 1.0, 99.0)]
    runs = (1.0, 1.0, 99.0)
    assert traced(calls, runs).nodes[0].seconds == traced(calls, runs).inside_seconds == 1.0
    twice = traced([Call("a", "Add", "CPU", "", 1.0)] * 6, runs)
    assert (twice.nodes[0].seconds, twice.nodes[0].calls, twice.inside_seconds) == (2.0, 2, 2.0)
    assert traced(calls[:2], runs).nodes[0].seconds == pytest.approx(2 / 3)


def test_rows_of_the_signature_fit_every_dtype(tmp_path: Path) -> None:
    from hone.signature import Signature, TensorSpec

    specs = tuple(
        TensorSpec(name=dtype, dtype=dtype, shape=("batch", "sequence")) for dtype in ("int64", "bool", "string")
    )
    made = artifact(tmp_path / "a", "g (float[batch, 16] x) => (float[batch, 16] y) { y = Relu (x) }", {}, WIDTH)
    batch, source = batch_of(made.with_manifest(signature=Signature(inputs=specs, outputs=specs)), 3)
    assert {name: (array.shape, array.dtype) for name, array in batch.items()} == {
        "int64": ((3, 32), np.dtype(np.int64)),
        "bool": ((3, 32), np.dtype(bool)),
        "string": ((3, 32), np.dtype(object)),
    }
    assert "named axes are 32 long" in source


def test_batch_that_the_model_does_not_take_is_one_line(tmp_path: Path) -> None:
    graph = "g (float[batch, 16] x) => (float[batch, 16] y) { y = Reshape (x, s) }"
    made = artifact(tmp_path / "a", graph, {"s": np.array([2, WIDTH])}, WIDTH)
    assert profile(asked(made, batch=2), tmp_path).batch == 2
    with pytest.raises(HoneError, match=r"^m:v fails on a batch of 3 rows: .*Reshape"):
        profile(asked(made, batch=3), tmp_path)
    fixed = made.with_manifest(
        signature=made.signature.model_copy(
            update={"outputs": (made.signature.outputs[0].model_copy(update={"shape": (1, WIDTH)}),)}
        )
    )
    with pytest.raises(HoneError, match="m takes one row at a time; leave --batch 3 out"):
        batch_of(fixed, 3)


def test_runtime_without_a_profiler_says_so(plain: Artifact, tmp_path: Path) -> None:
    sklearn = runtimes.runtime_class("sklearn")
    with pytest.raises(UnavailableError, match="sklearn doesn't tell the time of operators; profile another variant"):
        sklearn.profile(object.__new__(sklearn), {}, 1, tmp_path)


def test_session_that_is_profiled_has_the_options_of_the_one_that_serves(bench: Bench, tmp_path: Path) -> None:
    """What its runtime options leave out is left out in the profile, too."""
    graph = """g (float[batch, 16] x) => (float[batch, 16] y) { a = MatMul (x, w) b = Identity (a) y = Relu (b) }"""
    made = artifact(tmp_path / "a", graph, {"w": matrix()}, WIDTH)
    for optimized, kinds in ((True, {"MatMul", "Relu"}), (False, {"MatMul", "Identity", "Relu"})):
        changed = made.with_manifest(runtime_options={"optimized": optimized})
        assert {one.operator for one in profile(asked(changed), tmp_path).operators} == kinds
    assert len(read_graph(tmp_path / "optimized.onnx").nodes) == 3
