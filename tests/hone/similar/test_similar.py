"""Stored models beside each other: copies, variants, others, and what can't be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from hone import store
from hone.artifact import seal
from hone.cli.main import cli
from hone.errors import StoreError
from hone.similar.answers import agreement
from hone.similar.ranking import similar
from tests.models.dense import dense_artifact
from tests.models.lite import lite_artifact
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench
from tests.servers import put, use_store


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    put(tmp_path, tmp_path / "a", "shop", "onnx-fp32-1")
    put(tmp_path, tmp_path / "b", "copy", "onnx-fp32-1")
    put(tmp_path, tmp_path / "c", "other", "onnx-fp32-1", seed=3)
    store.put(lite_artifact(tmp_path / "d", "dense"), "wide", "litert-1")
    return tmp_path


def test_a_copy_comes_first_and_another_signature_not_at_all(home: Path) -> None:
    ranked = similar("shop")
    assert [one.tag for one in ranked.found] == ["copy:onnx-fp32-1", "other:onnx-fp32-1"]
    first, second = ranked.found
    assert first.answers == agreement({"a": np.ones((2, 2))}, {"a": np.ones((2, 2))})
    assert second.answers is not None and (second.answers.off or 0) > 0.1
    assert (first.source, second.source) == (True, False) and first.weights is None  # twelve numbers are no layer
    assert [one.tag for one in similar("shop", "other").found] == ["other:onnx-fp32-1"]


def test_weights_are_compared_beside_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    use_store(tmp_path)
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    float_, other = bench.artifact(perceptron()), bench.artifact(changed(perceptron()))
    narrow = bench.run("quantize_weights", float_, bits=8)
    for name, made in (("float", float_), ("narrow", narrow), ("changed", other)):
        store.put(made, name, "v1")
    first, second = similar("float:v1").found
    assert [first.tag, second.tag] == ["narrow:v1", "changed:v1"] and (first.source, second.source) == (True, False)
    assert first.weights is not None and first.weights > 0.999 and first.matched == 1
    assert second.weights is not None and second.weights < 0.9


def changed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with other numbers in its first layer."""
    tensor = model.graph.initializer[0]
    array = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array[::-1].copy(), tensor.name))
    return model


def test_what_cannot_be_compared_is_named_and_last(home: Path) -> None:
    made = dense_artifact(home / "e", name="apple")
    store.put(seal(made.path, made.manifest.model_copy(update={"runtime": "mlx"})), "apple", "mlx-q8-1")
    last = similar("shop").found[-1]
    assert last.tag == "apple:mlx-q8-1" and last.answers is None and last.note


def test_the_command_prints_a_table_or_a_line_each(home: Path) -> None:
    run = CliRunner().invoke
    printed = run(cli, ["models", "similar", "shop"]).output
    assert "TAG" in printed and printed.index("copy:onnx-fp32-1") < printed.index("other:onnx-fp32-1")
    lines = [json.loads(line) for line in run(cli, ["models", "similar", "shop", "--json"]).output.splitlines()]
    assert lines[0]["answers"]["share"] == 1.0
    pytest.importorskip("ai_edge_litert")
    assert "no other stored model takes" in run(cli, ["models", "similar", "wide:litert-1"]).output
    unknown = run(cli, ["models", "similar", "nothing"])
    assert unknown.exit_code == 1 and unknown.output.startswith("error: no model 'nothing'")
    with pytest.raises(StoreError):
        similar("nothing")
    assert store.resolve("shop").tag == "shop:onnx-fp32-1"


def test_agreement_is_read_by_kind_of_output() -> None:
    scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    swapped = scores.copy()
    swapped[0] = swapped[0, ::-1]
    assert agreement({"p": scores}, {"p": swapped}).share == 0.75
    labels = np.array(["a", "b", "b", "a"])
    assert agreement({"l": labels}, {"l": np.array(["a", "b", "a", "a"])}).share == 0.75
    values = np.arange(10.0)
    found = agreement({"v": values}, {"v": values + 1})
    assert found.off == pytest.approx(1 / values.std()) and found.share == pytest.approx(1 - 1 / values.var())
    assert agreement({"v": values}, {"v": values[:3]}).off is None
    broken = agreement({"v": values}, {"v": np.where(values == 4, np.nan, values)})
    assert broken.off is None and broken.share == 0
    assert agreement({"p": scores, "v": values}, {"p": swapped, "v": values}).share == 0.75
