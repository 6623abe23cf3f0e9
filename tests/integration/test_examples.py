"""The forecasting examples, as `hone optimize` runs them: trained weights of this repository, a real series."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hone.cli import cli

ROOT = Path(__file__).parents[2]
pytest.importorskip("torch")
pytest.importorskip("statsmodels")


def optimize(recipe: Path, out: Path, *options: str) -> dict[str, dict[str, object]]:
    result = CliRunner().invoke(cli, ["optimize", str(recipe), "--out", str(out), *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    assert report["winner"]
    return {variant["name"]: variant for variant in report["variants"]}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "worst"), [("lstm", 0.55), ("transformer", 0.55)])
def test_forecasters_keep_their_quality(tmp_path: Path, name: str, worst: float) -> None:
    found = optimize(ROOT / "examples" / "forecast" / f"{name}.yaml", tmp_path / "out")
    source = found["torch"]["quality"]
    assert isinstance(source, float) and source < worst  # ppm, where the series moves by 6 ppm within a year
    built = {key: variant for key, variant in found.items() if variant["status"] == "built"}
    assert set(built) == set(found), {key: variant["reason"] for key, variant in found.items() if key not in built}
    assert sum(bool(variant["eligible"]) for variant in built.values()) >= 3
    if name == "transformer":
        (fuse,) = [step for step in found["onnx-fused-fp32"]["passes"] if step["name"] == "fuse"]  # type: ignore[union-attr, attr-defined]
        assert fuse["details"]["fused"]["attention"] == 3
