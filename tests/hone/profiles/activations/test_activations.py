"""What values flow through small graphs, whose ranges, dead units and outliers are known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hone.cli.main import cli
from hone.errors import UnavailableError
from hone.profiles.activations.collect import look
from hone.profiles.activations.record import Activations, Layer
from hone.profiles.activations.statistics import SAMPLE, Statistics
from hone.store.rows import keep_rows
from tests.hone.profiles.graphs import WIDTH, artifact, matrix
from tests.servers import put

GRAPH = f"""m (float[batch, {WIDTH}] x) => (float[batch, {WIDTH}] y) {{
    first = MatMul(x, a)
    shifted = Add(first, shift)
    open = Relu(shifted)
    second = MatMul(open, b)
    gate = Sigmoid(second)
    y = MatMul(gate, a)
}}"""


def weights(**changes: np.ndarray) -> dict[str, np.ndarray]:
    shift = np.zeros(WIDTH, np.float32)
    shift[3:6] = -100.0  # three units that no row wakes
    return {"a": matrix(), "b": matrix(1), "shift": shift, **changes}


def look_at(folder: Path, rows: np.ndarray, **changes: np.ndarray) -> dict[str, Layer]:
    path = folder / "models" / "m" / "v"
    path.parent.mkdir(parents=True)
    made = artifact(path, GRAPH, weights(**changes), WIDTH)
    keep_rows(path, {"x": rows})
    found = look("m:v", made, len(rows))
    assert (found.rows, found.rows_from) == (len(rows), "rows of its evaluation")
    return {layer.tensor: layer for layer in found.layers}


def some(rows: int = 100) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(rows, WIDTH)).astype(np.float32)


def test_figures_are_those_of_the_rows(tmp_path: Path) -> None:
    rows = some()
    found = look_at(tmp_path, rows)
    assert list(found) == ["first", "shifted", "open", "second", "gate", "y"]
    first = rows @ matrix()
    layer = found["first"]
    wanted = (first.min(), first.max(), first.mean(), first.std())
    assert (layer.least, layer.most, layer.mean, layer.std) == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert layer.percentiles["99"] == pytest.approx(np.percentile(first, 99), rel=1e-3)
    assert (layer.shape, layer.channels, layer.feeds) == ((WIDTH,), WIDTH, ("Add",))
    step = (first.max() - first.min()) / 255 / 12**0.5 / first.std()
    assert layer.int8_noise == pytest.approx(step, rel=1e-3) and layer.remarks == ()


def test_dead_units_are_counted_behind_rectifiers_only(tmp_path: Path) -> None:
    found = look_at(tmp_path, some())
    assert {name: layer.dead for name, layer in found.items() if layer.dead} == {"open": 3}
    assert found["open"].zeros > 3 / WIDTH
    dead = next(remark for remark in found["open"].remarks if remark.kind == "dead")
    assert dead.line == f"3 of {WIDTH} units are zero for every row: pass prune takes them out"


def test_outlying_channels_and_ends_of_sigmoids_are_told(tmp_path: Path) -> None:
    wide = matrix()
    wide[:, 7] *= 50
    found = look_at(tmp_path, some(), a=wide, b=matrix(1) * 20)
    assert found["first"].outliers[0].channel == 7 and found["first"].outliers[0].ratio > 10
    kinds = {name: {remark.kind for remark in layer.remarks} for name, layer in found.items()}
    assert {"outliers", "weights"} <= kinds["first"] and "outliers" in kinds["open"]
    assert "smooth before int8" in next(remark.line for remark in found["open"].remarks if remark.kind == "outliers")
    assert (found["gate"].saturated or 0) > 0.5 and "saturated" in kinds["gate"]


def test_values_that_are_not_finite_spoil_no_figure(tmp_path: Path) -> None:
    shift = np.zeros(WIDTH, np.float32)
    shift[2] = -np.inf
    layer = look_at(tmp_path, some(), shift=shift)["shifted"]
    assert layer.not_finite == 100 and np.isfinite([layer.least, layer.most, layer.mean, layer.std]).all()


def test_a_sample_stays_small_and_stands_for_all() -> None:
    values = np.random.default_rng(0).normal(size=(40, 100, 100)).astype(np.float32)
    made = Statistics(axis=-1)
    for batch in np.split(values, 8):
        made.add(batch)
    assert sum(map(len, made._sample)) <= SAMPLE
    assert made.percentiles()["99"] == pytest.approx(np.percentile(values, 99), abs=0.05)
    assert made.count == values.size and made.largest is not None and made.largest.shape == (100,)


def test_the_command_prints_writes_and_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path))
    put(tmp_path, tmp_path / "a", "dense", "onnx-fp32-1")
    run = CliRunner().invoke
    printed = run(cli, ["profile", "dense", "--activations", "--out", str(tmp_path / "out")])
    assert printed.exit_code == 0 and "VALUE" in printed.output and "note    " in printed.output
    record = json.loads((tmp_path / "out" / "activations.json").read_text())
    assert Activations.model_validate(record).model.startswith("dense:")
    assert "<table>" in (tmp_path / "out" / "activations.html").read_text()
    assert json.loads(run(cli, ["profile", "dense", "--activations", "--json"]).output)["kind"] == "activations"
    refused = run(cli, ["profile", "dense", "--activations", "--batch", "3"])
    assert refused.exit_code == 2 and "has no batches" in refused.output


def test_another_runtime_shows_no_values(tmp_path: Path) -> None:
    made = artifact(tmp_path / "m", GRAPH, weights(), WIDTH)
    with pytest.raises(UnavailableError, match="m:v is for mlx, which shows no values inside"):
        look("m:v", made.with_manifest(runtime="mlx"), 8)
