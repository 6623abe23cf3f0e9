from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hone.converters.graph.execution import BATCH_ROWS
from hone.converters.passes.quantize.smooth import STRENGTHS
from hone.errors import PassError
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench, cosine, details, operators


@pytest.mark.parametrize("normalized", [True, False])
def test_smoothing_changes_nothing_in_float(tmp_path: Path, normalized: bool) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    source = bench.artifact(perceptron(normalized=normalized))
    made = bench.run("smooth", source)
    np.testing.assert_allclose(bench.outputs(made)["y"], bench.outputs(source)["y"], rtol=1e-3, atol=1e-4)
    facts = details(made)
    assert facts["smoothed"] == 3
    # Factors go into the normalization before a layer; without one they need a Mul.
    assert (facts["folded"], operators(made).count("Mul")) == ((3, 0) if normalized else (0, 3))


def test_int8_after_smoothing_is_closer_to_float(tmp_path: Path) -> None:
    rows = perceptron_rows(256)
    rows["x"][:, 3] *= 80  # one outlying channel sets the range of all
    bench = Bench(tmp_path, perceptron_signature(), rows)
    source = bench.artifact(perceptron())
    wanted = bench.outputs(source)["y"]
    plain = bench.run("quantize_dynamic", source)
    smoothed = bench.run("quantize_dynamic", bench.run("smooth", source))
    loss, smooth_loss = (1 - cosine(bench.outputs(made)["y"], wanted) for made in (plain, smoothed))
    assert smooth_loss < loss / 2


def test_strength_with_the_closest_answers_is_kept(tmp_path: Path) -> None:
    rows = perceptron_rows(256)
    rows["x"][:, 3] *= 80
    bench = Bench(tmp_path, perceptron_signature(), rows)
    source = bench.artifact(perceptron())
    facts = details(bench.run("smooth", source))
    tried = facts["int8_error_by_strength"]
    assert list(tried) == [f"{strength:g}" for strength in STRENGTHS]
    assert len(set(tried.values())) > 1
    assert tried[f"{facts['strength']:g}"] == min(tried.values())
    fixed = details(bench.run("smooth", source, strength=0.3))
    assert fixed["strength"] == 0.3
    assert "int8_error_by_strength" not in fixed


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize(("features", "seven"), [(["avx2"], True), (["avx2", "avx512_vnni"], False)])
def test_strengths_are_tried_as_the_host_quantizes(
    tmp_path: Path, gemm: bool, features: list[str], seven: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.runtimes.onnx.saturation.host", lambda: {"machine": "x86_64", "cpu_features": features})
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(BATCH_ROWS))  # a batch's range is each row's
    source = bench.artifact(perceptron(gemm=gemm))
    wanted = bench.outputs(source)["y"].astype(np.float64)
    tried = details(bench.run("smooth", source))["int8_error_by_strength"]
    for strength in STRENGTHS:
        smoothed = bench.run("smooth", source, strength=strength)
        got = bench.outputs(bench.run("quantize_dynamic", smoothed, reduce_range=seven))["y"]
        error = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
        assert tried[f"{strength:g}"] == pytest.approx(error, rel=1e-3)


def test_excluded_layer_and_graph_without_layers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    source = bench.artifact(perceptron())
    assert details(bench.run("smooth", source, exclude=["first"]))["smoothed"] == 2
    with pytest.raises(PassError, match="leave smooth out"):
        bench.run("smooth", source, exclude=["first", "second", "third"])


def test_channels_that_are_always_zero_are_left_alone(tmp_path: Path) -> None:
    rows = perceptron_rows()
    rows["x"][:, :5] = 0
    bench = Bench(tmp_path, perceptron_signature(), rows)
    source = bench.artifact(perceptron())
    made = bench.run("smooth", source)
    np.testing.assert_allclose(bench.outputs(made)["y"], bench.outputs(source)["y"], rtol=1e-3, atol=1e-4)
