"""`python -m benchmarks.estimates`: what is compared, on one small set, and what is written of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hone.benchmarks.estimates import __main__ as estimates
from hone.benchmarks.estimates import traffic


def test_errors_of_estimates_are_written_by_set_traffic_and_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(900, 3))
    labels = (rows[:, 0] + generator.normal(0, 0.5, 900) > 0).astype(int)
    made = traffic._parted("small", rows, labels, rows[:, 1] > 1, "more of some", 0)
    monkeypatch.setattr(estimates, "sets", lambda seed: [made])
    monkeypatch.setattr(estimates, "MANY", 4000)
    asked = ["--seeds", "1", "--metric", "accuracy", "--metric", "f1", "--out", str(tmp_path)]
    done = CliRunner().invoke(estimates.main, asked)
    assert done.exit_code == 0, done.output
    found = {
        (one["traffic"], one["metric"]): one for one in json.loads((tmp_path / "estimates.json").read_text())["results"]
    }
    assert len(found) == 8 and (tmp_path / "estimates.md").read_text().count("\n| small |") == 8
    assert found["as the proof", "f1"]["off"] < 0.05 and found["as the proof", "f1"]["held"] == 1
    assert found["15 % of labels mean something else", "f1"]["off"] > 0.05, "that can't be seen"
    wrong = CliRunner().invoke(estimates.main, ["--metric", "f2"])
    assert wrong.exit_code == 2 and "f1" in wrong.output
