"""`python -m benchmarks.keeping`: costs from turns, and a run that is as short as it can be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from hone.benchmarks.keeping.__main__ import AGAIN, KEEPS, OFF, main, sides_of, to_markdown


def test_a_cost_is_of_the_same_turn_and_has_bounds() -> None:
    quick = [{"rps": 1000.0 * turn, "cpu_us": 50.0} for turn in (1, 2, 3, 4)]
    slow = [{"rps": 980.0 * turn, "cpu_us": 55.0} for turn in (1, 2, 3, 4)]
    sides = {one["keeps"]: one for one in sides_of({OFF: quick, AGAIN: quick, "sketches and notes": slow})}
    assert "rps_cost" not in sides[OFF] and sides[AGAIN]["rps_cost"]["cost"] == pytest.approx(0)
    found = sides["sketches and notes"]
    assert found["rps_cost"]["cost"] == pytest.approx(1 / 0.98 - 1) and found["cpu_us_cost"]["cost"] == pytest.approx(
        0.1
    )
    report = {"turns": 4, "seconds": 1.0, "connections": 1, "rows": 1, "aim": 0.02, "host": {"cpu": "a", "cores": 2}}
    text = to_markdown({**report, "sides": [*sides.values()]})
    assert "| missed |" in text and "+10.0% (+10.0% to +10.0%)" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_every_side_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    done = CliRunner().invoke(main, ["--turns", "2", "--seconds", "1", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "keeping.json").read_text())
    assert [one["keeps"] for one in found["sides"]] == [*KEEPS]
    assert all(one["cpu_us"] > 0 for one in found["sides"])
