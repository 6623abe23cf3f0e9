"""`python -m benchmarks.scoring`, on few rows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from hone.benchmarks.scoring.__main__ import main
from hone.plan import VARIABLE
from tests.hone.scoring import stored


@pytest.mark.slow
def test_ratio_of_a_model_is_measured_and_judged(home: Path, tmp_path: Path) -> None:
    stored(home, tmp_path)
    command = ["--model", "dense", "--rows", "500", "--turns", "1", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, [*command, "--aim", "0"])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "score.json").read_text())
    assert found["ratio"] == pytest.approx(found["scored_rows_per_s"][0] / found["bare_rows_per_s"][0])
    assert (found["verdict"], found["model"]) == ("met", "dense:onnx-fp32-1")
    assert CliRunner().invoke(main, [*command, "--aim", "1000"]).exit_code == 3
    assert VARIABLE not in os.environ
