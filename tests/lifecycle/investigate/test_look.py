"""What `hone investigate` finds first: the version, the column, the caller or the pod that a change is of."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from hone.cli.main import cli
from hone.lifecycle.investigate.clues import Investigation
from hone.lifecycle.investigate.look import Question, investigate
from hone.lifecycle.registry.history import entered
from hone.services.launch import free_port
from hone.sketches.folder import HOUR_S
from hone.traffic.answered import Answered, place_of, to_table, write_part
from tests.lifecycle.drift.traffic import NOW, NOW_S, Stored, normal, stored
from tests.models.dense import dense_answer
from tests.servers import wait_ready

BEFORE, SINCE = range(NOW - 5, NOW - 2), range(NOW - 2, NOW + 1)
"""Three hours each."""


@pytest.fixture
def model(tmp_path: Path) -> Stored:
    return stored(tmp_path)


def look(model: Stored, **question: object) -> Investigation:
    asked = Question((NOW - 2) * HOUR_S + 600.0, model.folder, **question)  # type: ignore[arg-type]
    return investigate("dense", asked, NOW_S)


def kinds(found: Investigation) -> list[str]:
    return [clue.kind for clue in found.clues]


def test_nothing_that_changed_is_said_and_what_isnt_known(model: Stored) -> None:
    model.hours([*BEFORE, *SINCE], 1000)
    found = look(model)
    assert found.clues == ()
    assert "inputs: 4 of 4 columns, as far as 3,000 rows tell" in found.same
    assert [words.partition(":")[0] for words in found.unknown] == ["callers", "pods, stages and failures"]


def test_column_that_moved_comes_first_and_what_it_does_to_answers_after(model: Stored) -> None:
    model.hours(BEFORE, 800)
    model.hours(SINCE, 800, shift=1.5, seed=1)
    found = look(model)
    assert found.clues[0].what == "input.features[1]" and found.clues[0].strength > 0.3
    assert "before" in found.clues[0].words and "HoneDrift" in found.action(found.clues[0])
    assert set(kinds(found)[1:]) <= {"output"}


def test_version_that_took_over_is_named_with_who_changed_it(tmp_path: Path, model: Stored) -> None:
    other = stored(tmp_path, version="v2")
    now_s = time.time()
    now = int(now_s) // HOUR_S
    model.hours(range(now - 5, now - 2), 800)
    wrong = dense_answer(normal(np.random.default_rng(1), 800)) * 3
    for hour in range(now - 2, now + 1):
        other.hour(hour, normal(np.random.default_rng(hour), 800), answers=wrong)
    with entered("promote", "dense:v2") as details:
        details["reason"] = "a try"
    found = investigate("dense", Question((now - 2) * float(HOUR_S), model.folder), now_s)
    assert kinds(found)[0] == "version" and found.clues[0].what == "v2"
    assert found.clues[0].words == "answered 0.0% of the rows before, answers 100.0% now"
    assert "input" not in kinds(found) and "outputs: no version answered in both times" in " ".join(found.unknown)
    assert any(clue.kind == "change" and "promote dense:v2 (a try)" in clue.words for clue in found.clues)


def test_load_that_grew_is_told_in_rows(model: Stored) -> None:
    model.hours(BEFORE, 300)
    model.hours(SINCE, 1500, seed=1)
    assert [(clue.kind, clue.what) for clue in look(model).clues] == [("traffic", "rows an hour")]


def answers(folder: Path, hours: range, callers: dict[str, int]) -> None:
    for hour in hours:
        units = [unit for unit, count in callers.items() for _ in range(count)]
        some = [Answered(hour * 3_600_000_000 + place, f"{hour}-{place}", unit=one) for place, one in enumerate(units)]
        write_part(place_of(folder, "dense", "v1", hour), "w", 1, to_table(some), None)


def test_caller_whose_share_grew_is_named(tmp_path: Path, model: Stored) -> None:
    model.hours([*BEFORE, *SINCE], 1000)
    answers(tmp_path / "answers", BEFORE, {"a": 90, "b": 100, "": 50})
    answers(tmp_path / "answers", SINCE, {"a": 90, "b": 100, "c": 200})
    found = look(model, answers=tmp_path / "answers")
    assert [(clue.kind, clue.what) for clue in found.clues] == [("caller", "c")]
    assert found.clues[0].words.startswith("0.0% of the requests of known callers before, 51.3% now")


def series(name: str, labels: str, before: float, after: float) -> Iterator[str]:
    """Yield samples of a counter each minute: it grows by so much a minute in three hours, and in the next three."""
    total = 0.0
    for minute in range(6 * 60):
        total += before if minute < 180 else after
        yield f"{name}{{{labels}}} {total:.3f} {(NOW - 5) * HOUR_S + 60 * minute}"


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[str]:
    """A real Prometheus that has seen one of three pods become slow, more waiting, and failures."""
    if not (shutil.which("promtool") and shutil.which("prometheus")):
        pytest.skip("prometheus is not installed")
    pods = [f'model="dense",version="v1",instance="pod-{pod}"' for pod in "abc"]
    lines = []
    for stage, was, now in (("request", 0.6, 0.9), ("queue", 0.1, 0.5), ("inference", 0.3, 0.31)):
        lines.append(f"# TYPE hone_{stage}_seconds histogram")
        for pod in pods:
            slow = 4.0 if stage == "request" and "pod-c" in pod else 1.0
            lines += series(f"hone_{stage}_seconds_sum", pod, was, now * slow)
            lines += series(f"hone_{stage}_seconds_count", pod, 100, 100)
    lines.append("# TYPE hone_requests counter")
    for status, was, now in (("200", 100, 90), ("503", 0.01, 10)):
        lines += series("hone_requests_total", f'{pods[0]},status="{status}"', was, now)
    (tmp_path / "metrics").write_text("\n".join([*lines, "# EOF\n"]))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", tmp_path / "metrics", tmp_path / "data"]
    subprocess.run(command, check=True, capture_output=True)
    (tmp_path / "prometheus.yml").write_text("{}")
    url = f"http://127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    with (tmp_path / "log").open("wb") as log:
        options = [f"--web.listen-address={url[7:]}", "--storage.tsdb.retention.time=100y"]
        process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
    try:
        with httpx.Client(base_url=url) as client:
            wait_ready(client, process, tmp_path / "log", path="/-/ready")
            yield url
    finally:
        process.kill()
        process.wait()


def test_prometheus_tells_stages_failures_and_the_pod_that_stands_out(model: Stored, prometheus: str) -> None:
    model.hours([*BEFORE, *SINCE], 1000)
    found = look(model, prometheus=prometheus)
    told = {(clue.kind, clue.what): clue for clue in found.clues}
    assert {("stage", "end to end"), ("stage", "waiting"), ("failure", "5xx"), ("pod", "pod-c")} <= set(told)
    assert re.fullmatch(r"1\.0. ms before, 5\.00 ms now, on average", told["stage", "waiting"].words)
    assert told["pod", "pod-c"].words == "36.00 ms on average, the others 9.00 ms"
    assert told["failure", "5xx"].words.endswith("of the requests before, 10.00% now")
    assert any(words.startswith("a batch: 3.0") for words in found.same)


def test_command_prints_each_clue_with_what_to_do_and_one_line_for_what_is_wrong(tmp_path: Path) -> None:
    stored(tmp_path)
    answer = CliRunner().invoke(cli, ["investigate", "dense", "--since", "2h", "--drift-dir", str(tmp_path)])
    assert answer.exit_code == 0 and "nothing that was looked at has changed" in answer.output
    assert "not known  versions, traffic, inputs and outputs: nothing was sketched in either time" in answer.output
    with entered("rollback", "dense"):
        pass
    told = CliRunner().invoke(cli, ["investigate", "dense", "--since", "2h", "--json"])
    (clue,) = json.loads(told.output)["clues"]
    assert clue["kind"] == "change"
    for arguments, words in (
        (["nope", "--since", "2h"], "no model 'nope'"),
        (["dense", "--since", "soon"], "'soon' is no span of time"),
        (["dense", "--since", "2h", "--prometheus", "http://127.0.0.1:9"], "is Prometheus there"),
        (["dense", "--since", "2h", "--drift-dir", str(tmp_path / "none")], "does not exist"),
    ):
        refused = CliRunner().invoke(cli, ["investigate", *arguments])
        assert refused.exit_code in (1, 2) and words in refused.output, refused.output
