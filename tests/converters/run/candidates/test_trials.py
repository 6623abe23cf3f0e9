"""Trials: what a few calibration rows show, and which candidates have no chance by that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hone.converters.run.candidates.trials import BATCH_ROWS, Trial, hopeless, run_trials
from hone.data import Dataset, save_dataset
from hone.recipe import Recipe
from tests.models.perceptron import CLASSES, perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench


def recipe(metric: str = "likeness", objective: str = "latency", **budget: Any) -> Recipe:
    content = {"name": "m", "source": {"file": "m.onnx"}, "evaluation": "e.npz", "objective": objective}
    return Recipe.model_validate({**content, "quality": {"metric": metric}, "budget": budget})


def trial(ms: float = 1.0, loss: float | None = 0.0, size: float = 1.0, **more: Any) -> Trial:
    return Trial(ms=ms, size_mb=size, loss=loss, allowed=0.01, **more)


def left_out(trials: dict[str, Trial], **asked: Any) -> dict[str, str]:
    return hopeless(trials, recipe(**asked), "float")


def test_one_that_is_much_slower_and_no_closer_is_left_out() -> None:
    found = left_out({"float": trial(4), "fast": trial(1, 0.001), "slow": trial(2, 0.0), "near": trial(1.3, 0.0)})
    assert found == {"slow": "2.0 times as slow as fast, which is close enough to the source"}


def test_a_fast_one_that_loses_some_leaves_the_closer_ones_in() -> None:
    assert left_out({"float": trial(4), "fast": trial(1, 0.008), "slow": trial(3, 0.001)}) == {}
    worse = left_out({"float": trial(4), "fast": trial(1, 0.006), "slow": trial(3, 0.008)})
    assert list(worse) == ["slow"]


def test_one_that_answers_otherwise_is_left_out_and_beats_nobody() -> None:
    found = left_out({"float": trial(4), "broken": trial(0.1, 0.6)})
    assert found == {"broken": "its answers are 0.6 from the float graph's, 0.01 may be lost"}
    assert left_out({"float": trial(4), "odd": trial(1, float("nan"))})


def test_with_labels_a_distance_to_the_source_must_be_larger() -> None:
    trials = {"float": trial(4), "far": trial(1, 0.2), "broken": trial(1, 0.3)}
    assert list(left_out(trials, metric="accuracy")) == ["broken"]
    assert list(left_out(trials)) == ["far", "broken"]


def test_limits_of_the_budget_count_sizes_exactly_and_times_roughly() -> None:
    trials = {
        "float": trial(4, size=9),
        "large": trial(size=2.1),
        "slow": trial(5),
        "slower": trial(30),
        "fit": trial(8),
    }
    found = left_out(trials, size_mb=2, p95_ms=10, objective="quality")
    assert found == {"large": "2.1 MB, 2 are allowed", "slower": "30 ms a call, 10 are allowed"}


def test_by_size_the_large_ones_are_left_out() -> None:
    found = left_out(
        {"float": trial(1, size=4), "int8": trial(9, 0.001, 1), "fp16": trial(1, 0.0, 2)}, objective="size"
    )
    assert list(found) == ["fp16"] and "2.0 times as large as int8" in found["fp16"]


def test_the_float_graph_stays_whatever_it_showed() -> None:
    assert left_out({"float": trial(99, problem="it crashed"), "fast": trial(1)}) == {}
    assert left_out({"float": trial(4), "bad": trial(problem="no such operator")}) == {
        "bad": "it failed: no such operator"
    }


def test_without_quality_nobody_is_beaten() -> None:
    assert left_out({"float": trial(4, None), "fast": trial(1, None), "slow": trial(3, None)}) == {}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, perceptron_signature(), perceptron_rows())


def tried(bench: Bench, rows: int, **steps: str) -> dict[str, Trial]:
    """Make variants of a delicate perceptron, and try them on so many rows."""
    whole = bench.artifact(perceptron(delicate=True))
    save_dataset(Dataset({"x": perceptron_rows(rows)["x"]}), bench.folder / "calibration.npz")
    made = {name: bench.run(step, whole).path for name, step in steps.items()}
    candidates = {"float": whole.path, **made}
    return run_trials(bench.recipe, bench.folder / "calibration.npz", whole.path, candidates, {})


def test_a_trial_measures_closeness_time_and_size(bench: Bench) -> None:
    found = tried(bench, 32, int8="quantize_dynamic")
    assert found["float"].loss == 0 and found["float"].exact and found["float"].allowed == 0.01
    assert found["int8"].loss is not None and found["int8"].loss > 0
    assert all(one.ms > 0 and one.size_mb > 0 and not one.problem for one in found.values())
    assert found["int8"].size_mb < found["float"].size_mb


def test_too_few_rows_tell_nothing_of_quality_and_a_broken_artifact_is_named(bench: Bench) -> None:
    whole = bench.artifact(perceptron())
    save_dataset(Dataset({"x": perceptron_rows(8)["x"]}), bench.folder / "calibration.npz")
    other = bench.artifact(perceptron())
    manifest = other.path / "artifact.json"
    manifest.write_text(manifest.read_text().replace('"runtime": "onnx"', '"runtime": "tensorrt"'))
    found = run_trials(
        bench.recipe, bench.folder / "calibration.npz", whole.path, {"float": whole.path, "engine": other.path}, {}
    )
    assert found["float"].loss is None and found["float"].ms > 0
    assert found["float"].unjudged == "8 calibration rows are too few to tell its loss"
    assert found["engine"].problem and "\n" not in found["engine"].problem


def test_what_is_known_is_timed_only(bench: Bench) -> None:
    whole = bench.artifact(perceptron())
    save_dataset(Dataset({"x": perceptron_rows(32)["x"]}), bench.folder / "calibration.npz")
    known = {"float": Trial(loss=0.5, allowed=1.0, ms=-1.0)}
    rows = bench.folder / "calibration.npz"
    found = run_trials(bench.recipe, rows, whole.path, {"float": whole.path}, known)
    assert found["float"].loss == 0.5 and found["float"].ms > 0
    assert np.isfinite(found["float"].size_mb)


def test_one_that_fails_while_it_is_timed_takes_no_other_with_it(bench: Bench) -> None:
    whole, fixed = bench.artifact(perceptron()), perceptron()
    fixed.graph.node[-1].output[0] = "before"
    fixed.graph.node.append(onnx.helper.make_node("Reshape", ["before", "sixteen"], ["y"]))
    fixed.graph.initializer.append(onnx.numpy_helper.from_array(np.array([BATCH_ROWS, CLASSES]), "sixteen"))
    save_dataset(Dataset({"x": perceptron_rows(2 * BATCH_ROWS)["x"]}), bench.folder / "calibration.npz")
    candidates = {"float": whole.path, "fixed": bench.artifact(fixed).path, "again": whole.path}
    found = run_trials(bench.recipe, bench.folder / "calibration.npz", whole.path, candidates, {})
    assert "Reshape" in found["fixed"].problem and found["fixed"].loss is None and not found["fixed"].ms
    assert found["float"].ms > 0 and found["again"].ms > 0
