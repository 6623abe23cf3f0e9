"""Graphs over protobuf's limit, which keep their weights in a second file: what they are made into does, too.

The limit is lowered, so that small graphs are over it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hone.artifact import Artifact
from hone.converters.graph import onnx_graph
from hone.converters.graph.execution import cpu_session
from hone.converters.graph.onnx_graph import load_graph, save_graph
from tests.converters.passes import test_skip_padding as padded
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench

BOTH = {"model.onnx", "model.onnx.data"}
ROWS = perceptron_rows()


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "LIMIT", 1)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, perceptron_signature(), ROWS)


def files(artifact: Artifact) -> set[str]:
    return {file.name for file in artifact.path.iterdir() if file.name.startswith("model")}


@pytest.mark.usefixtures("limit")
def test_a_graph_is_whole_after_it_is_saved_and_saved_again(tmp_path: Path) -> None:
    model, file = perceptron(), tmp_path / "model.onnx"
    save_graph(model, file)
    size = (tmp_path / "model.onnx.data").stat().st_size
    assert (tmp_path / "model.onnx.data").stat().st_mode == file.stat().st_mode
    save_graph(model, file)
    assert (tmp_path / "model.onnx.data").stat().st_size == size
    for graph in (model, load_graph(file)):
        assert [list(tensor.raw_data) for tensor in graph.graph.initializer] == [
            list(tensor.raw_data) for tensor in perceptron().graph.initializer
        ]


def test_weights_of_a_graph_that_was_larger_are_gone(tmp_path: Path) -> None:
    (tmp_path / "model.onnx.data").write_bytes(b"of another graph")
    save_graph(perceptron(), tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx.data").exists()


@pytest.mark.usefixtures("limit")
def test_a_graph_in_memory_runs() -> None:
    assert cpu_session(perceptron()).run(None, ROWS)[0].shape == (64, 8)


@pytest.mark.usefixtures("limit")
@pytest.mark.parametrize(
    ("steps", "options"),
    [
        (["simplify", "simplify"], {}),
        (["simplify", "quantize_dynamic"], {}),
        (["simplify", "smooth"], {"strength": 0.5}),
        (["simplify", "quantize_mixed"], {"max_loss": 1.0}),
    ],
)
def test_passes_answer_as_for_a_small_one(bench: Bench, steps: list[str], options: dict[str, Any]) -> None:
    made = source = bench.artifact(perceptron())
    for step in steps:
        made = bench.run(step, made, **(options if step == steps[-1] else {}))
    assert files(made) == BOTH
    near = 0.2 if steps[-1].startswith("quantize") else 1e-4
    np.testing.assert_allclose(bench.outputs(made)["y"], bench.outputs(source)["y"], atol=near)


@pytest.mark.usefixtures("limit")
def test_shapes_are_inferred(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), ROWS)
    graph = onnx.load(bench.run("simplify", bench.artifact(perceptron())).entry, load_external_data=False).graph
    assert {"first_out", "second_out"} <= {value.name for value in graph.value_info}


@pytest.mark.usefixtures("limit")
def test_padding_is_skipped(tmp_path: Path) -> None:
    bench = Bench(tmp_path, padded.SIGNATURE, padded.rows(), quality={"metric": "cosine"})
    simple, made = padded.run(bench)
    np.testing.assert_allclose(bench.outputs(made)["y"], bench.outputs(simple)["y"], rtol=1e-5, atol=1e-6)
