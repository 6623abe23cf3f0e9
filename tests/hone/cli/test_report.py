"""`hone report` draws what it is given, or says what that is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from hone.benchmarks.measures import measure
from hone.benchmarks.records import LoadReport, Sent
from hone.benchmarks.scenarios import Scenario
from hone.cli.main import cli
from tests.capacities import capacity


def report(file: Path) -> Result:
    return CliRunner().invoke(cli, ["report", str(file)])


def test_page_of_a_load_test_is_drawn_again(tmp_path: Path) -> None:
    scenario, moments = Scenario(rate=100, duration_s=1, warm_up_s=0), np.arange(100) / 100
    ones = np.ones(100, int)
    measured = measure(Sent(moments, moments, moments + 0.003, ones, 0 * ones), scenario)
    load = LoadReport(
        model="dense:v1", url="http://127.0.0.1:9", created="2026-01-01T00:00:00+00:00", scenario=scenario,
        rate_source="given", host={"cpu": "x", "cores": 1}, **measured,
    )  # fmt: skip
    (tmp_path / "load.json").write_text(load.model_dump_json())
    done = report(tmp_path / "load.json")
    assert done.output == f"wrote {tmp_path / 'load.html'}\n"
    assert "dense:v1" in (tmp_path / "load.html").read_text()


def test_page_of_a_capacity_is_drawn_again(tmp_path: Path) -> None:
    (tmp_path / "capacity.json").write_text(capacity().model_dump_json())
    done = report(tmp_path / "capacity.json")
    assert done.output == f"wrote {tmp_path / 'capacity.html'}\n"
    assert "digits:onnx-fp32-1" in (tmp_path / "capacity.html").read_text()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            '{"kind": "comparison"}',
            "is what hone bench compare writes, which has no page; hone report draws report.json",
        ),
        ('{"kind": "autoscaling"}', "is what hone k8s simulate writes, whose picture is beside it"),
        ('{"kind": "load"}', "not a load report, version 1: model: Field required"),
        ('{"kind": "optimize"}', "not a report of hone optimize, version 1"),
        ("[]", "not a report of hone optimize, version 1"),
        ("{", "not a report of hone optimize, version 1"),
    ],
)
def test_other_file_is_named_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "some.json").write_text(content)
    done = report(tmp_path / "some.json")
    assert done.exit_code == 1
    assert len(done.output.splitlines()) == 1
    assert f"{tmp_path / 'some.json'}: {words}" in done.output
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["some.json"]
