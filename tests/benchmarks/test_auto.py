"""The benchmark of `variants: auto`: both ways of an example, and their winners side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.benchmarks.auto.__main__ import line, measured
from hone.benchmarks.auto.runs import chain_of, cold_run, compared, winner_of, written
from hone.errors import HoneError
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench

INT8 = [{"name": "export", "options": {"opset": 20}}, {"name": "quantize_dynamic", "options": {}}]


def report(winner: str | None, **latency: float) -> dict[str, Any]:
    """Return a report with a variant for each name, of so many ms."""
    variants = [
        {
            "name": name, "passes": INT8 if name in ("onnx-int8", "auto") else INT8[:1], "loss": 0.01,
            "loss_upper": 0.02, "size_mb": 1.0,
            "latency_ms": {"1": {"all": {"p50": ms, "p50_low": 0.9 * ms, "p50_high": 1.1 * ms}}},
        }
        for name, ms in latency.items()
    ]  # fmt: skip
    budget = {"at": {"batch": 1, "threads": "all"}}
    return {"recipe": "r.yaml", "winner": winner, "safest": None, "budget": budget, "variants": variants}


def runs(winner: str, *seconds: float) -> list[dict[str, Any]]:
    made = report(winner, torch=9.0, **{winner: 2.0})
    return [{"seconds": one, "cpu_s": one / 2, "report": made} for one in seconds]


def test_both_ways_are_compared_turn_by_turn_and_winners_in_one_run() -> None:
    found = {"hand": runs("onnx-fp32", 10.0, 20.0, 10.0), "auto": runs("onnx-int8", 12.0, 30.0, 11.0)}
    entry = compared(found, report("auto", torch=9.0, hand=2.0, auto=1.0))
    assert (entry["seconds_ratio"], entry["cpu_ratio"], entry["auto"]["seconds"]) == (1.2, 1.2, 12.0)
    assert (entry["hand"]["winner"], entry["auto"]["winner"], entry["auto"]["made"]) == ("onnx-fp32", "onnx-int8", 1)
    assert entry["latency_ratio"] == 0.5
    assert (entry["latency_ratio_low"], entry["latency_ratio_high"]) == (0.409, 0.611)
    said = line({"name": "small", **entry})
    assert "auto took 1.20 times as long" in said and "its latency is 0.50 of that (0.41 to 0.61)" in said


def test_the_same_winner_twice_is_measured_once() -> None:
    entry = compared(
        {"hand": runs("onnx-int8", 10.0), "auto": runs("onnx-int8", 9.0)}, report("hand", torch=9.0, hand=1.0)
    )
    assert [entry[f"latency_ratio{end}"] for end in ("", "_low", "_high")] == [1.0, 1.0, 1.0]


def test_a_chain_is_written_as_a_recipe_takes_it_and_no_winner_is_said() -> None:
    assert chain_of({"passes": INT8}) == [{"export": {"opset": 20}}, {"quantize_dynamic": {}}]
    with pytest.raises(HoneError, match=r"r\.yaml: no variant meets the budget"):
        winner_of(report(None, torch=9.0))


def test_a_changed_recipe_stands_beside_what_its_own_names(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    changed = written(bench.recipe, tmp_path / "run", {"variants": "auto"})
    assert yaml.safe_load(changed.read_text())["variants"] == "auto"
    assert (changed.parent / "rows.npz").samefile(tmp_path / "rows.npz")
    assert yaml.safe_load(bench.recipe.read_text())["variants"] == ["onnx-fp32"]


def test_a_run_that_fails_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: small\nevaluation: none.npz\n")
    said = r"hone optimize recipe\.yaml ended with 2: error: .*source: is required"
    with pytest.raises(HoneError, match=said) as caught:
        cold_run(tmp_path / "recipe.yaml", "hand", tmp_path / "run", None)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_an_example_is_optimized_both_ways(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(), quality={"metric": "cosine"})
    (tmp_path / "model.onnx").write_bytes(perceptron().SerializeToString())
    entry = measured(bench.recipe, 1, None)
    assert entry["hand"]["winner"] == "onnx-fp32" and entry["hand"]["made"] == 1
    assert entry["auto"]["made"] >= 1 and entry["seconds_ratio"] > 0 and entry["latency_ratio"] > 0
