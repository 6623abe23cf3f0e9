"""When a model is trained again, and what is refused."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from hone.cli.main import cli
from hone.errors import HoneError, RecipeError
from hone.lifecycle.retrain.drifted import DriftLooks
from hone.lifecycle.retrain.journal import Journal, Run, now
from hone.lifecycle.retrain.training import trained
from hone.lifecycle.retrain.triggers import count_rows, due, next_time, rested
from hone.lifecycle.retrain.watch import Watch, listen
from hone.lifecycle.watching.alerts import Alert
from hone.recipe import RetrainSpec, load_recipe
from tests.lifecycle.registry.versions import proven
from tests.lifecycle.retrain.project import teach, write_project
from tests.servers import use_store


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> None:
    use_store(tmp_path / "home")


def a_run(hours_ago: float, **other: Any) -> Run:
    began = (now() - timedelta(hours=hours_ago)).isoformat()
    known = {"id": began, "name": "dense", "recipe": "r", "trigger": "t", "began": began, "ended": began}
    return Run.model_validate({**known, "outcome": "kept", **other})


def test_a_schedule_comes_round_once(tmp_path: Path) -> None:
    loaded = load_recipe(write_project(tmp_path / "p", schedule="0 * * * *", cooldown_h=0))
    journal = Journal("dense")
    journal.folder.mkdir(parents=True)
    assert due(loaded, journal, now()) == ""
    assert due(loaded, journal, now() - timedelta(hours=1)) == "schedule 0 * * * *"
    journal.write(a_run(0))
    assert due(loaded, journal, now() - timedelta(hours=9)) == ""
    journal.write(a_run(1.01))
    assert due(loaded, journal, now() - timedelta(hours=9)) == "schedule 0 * * * *"


def test_new_rows_are_counted_from_the_last_run_on(tmp_path: Path) -> None:
    loaded = load_recipe(write_project(tmp_path / "p", new_rows={"file": "rows.npz", "rows": 50}, cooldown_h=0))
    journal = Journal("dense")
    journal.folder.mkdir(parents=True)
    assert (count_rows(loaded), due(loaded, journal, now())) == (400, "400 new rows in rows.npz")
    journal.write(a_run(1, rows=400))
    assert due(loaded, journal, now()) == ""
    np.savez(tmp_path / "p" / "rows.npz", features=np.zeros((450, 4), np.float32))
    assert due(loaded, journal, now()) == "50 new rows in rows.npz"
    (tmp_path / "p" / "rows.npz").write_bytes(b"none")
    with pytest.raises(RecipeError, match=r"retrain\.new_rows\.file: .*rows\.npz"):
        due(loaded, journal, now())


def test_drift_is_asked_for_where_the_recipe_says_so(tmp_path: Path) -> None:
    said = {"dense": "3 inputs have drifted"}
    journal = Journal("dense")
    for drift, expected in ((True, "3 inputs have drifted"), (False, "")):
        loaded = load_recipe(write_project(tmp_path / str(drift), drift=drift))
        assert due(loaded, journal, now(), said.__getitem__) == expected


def test_lost_quality_is_asked_for_where_the_recipe_says_so(tmp_path: Path) -> None:
    said = {"dense": "quality, act: accuracy 0.7"}
    journal = Journal("dense")
    for quality, expected in ((True, said["dense"]), (False, "")):
        loaded = load_recipe(write_project(tmp_path / str(quality), quality=quality))
        assert due(loaded, journal, now(), degraded=said.__getitem__) == expected


def test_between_two_runs_there_is_rest_and_a_month_has_so_many() -> None:
    spec = RetrainSpec(command="true", cooldown_h=2, runs=3)
    assert rested(spec, [])
    assert not rested(spec, [a_run(1)])
    assert rested(spec, [a_run(3)])
    assert not rested(spec, [a_run(90), a_run(60), a_run(30)])
    assert rested(spec, [a_run(24 * 31), a_run(60), a_run(30)])
    assert rested(spec, [a_run(90), a_run(60, by_hand=True), a_run(30)])


def test_whoever_asks_over_http_needs_the_token(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="HONE_RETRAIN_TOKEN"):
        listen(["dense"], 0, "short")
    token = "a token of many characters"
    server = listen(["dense"], 0, token)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.server_port}") as client:
            assert client.post("/retrain/dense").status_code == 401
            client.headers["authorization"] = f"Bearer {token}"
            assert client.post("/retrain/another").status_code == 404
            assert client.post("/retrain/dense", content=b"[").status_code == 400
            assert client.post("/retrain/dense", content=b"x" * 5000).status_code == 400
            assert client.post("/retrain/dense", json={"reason": "the alert HoneDrift"}).status_code == 202
    finally:
        server.shutdown()
        server.server_close()
    loaded = load_recipe(write_project(tmp_path / "p"))
    assert due(loaded, Journal("dense"), now()) == "the alert HoneDrift"


def test_a_person_may_ask_by_a_command(tmp_path: Path) -> None:
    asked = CliRunner().invoke(cli, ["retrain", "request", "dense", "--reason", "new labels"])
    assert asked.exit_code == 0, asked.output
    assert due(load_recipe(write_project(tmp_path / "p")), Journal("dense"), now()) == "new labels"
    refused = CliRunner().invoke(cli, ["retrain", "request", "../dense"])
    assert refused.exit_code == 1 and "is no model's name" in refused.output


@pytest.mark.parametrize(
    ("retrain", "words"),
    [
        ({"schedule": "daily"}, "is no schedule"),
        ({"command": "a 'b"}, "is no command"),
        ({"call": "train:main"}, "not both"),
        ({"comand": "x"}, "did you mean 'command'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, retrain: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_recipe(write_project(tmp_path / "p", **retrain))


def test_a_schedule_that_never_comes_is_named(tmp_path: Path) -> None:
    loaded = load_recipe(write_project(tmp_path / "p", schedule="0 0 31 2 99"))
    with pytest.raises(RecipeError, match=r"retrain\.schedule: '0 0 31 2 99'"):
        next_time(loaded, "0 0 31 2 99", now())


def out_of(tmp_path: Path, what: str, seconds: float = 60, **retrain: Any) -> Path | None:
    folder = tmp_path / "p"
    loaded = load_recipe(write_project(folder, **retrain))
    teach(folder, what)
    (tmp_path / "out").mkdir()
    return trained(loaded, tmp_path / "out", tmp_path / "train.log", time.monotonic() + seconds)


def test_training_writes_the_sources_file_elsewhere(tmp_path: Path) -> None:
    assert out_of(tmp_path, "other") == tmp_path / "out" / "model.onnx"
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "p" / "other.onnx").read_bytes()
    assert (tmp_path / "train.log").read_text() == "learning other\n"


@pytest.mark.parametrize(
    ("what", "seconds", "retrain", "words"),
    [
        ("fails", 60, {}, "retrain.command failed with status 1: Traceback: the data base is away"),
        ("nothing", 60, {}, "wrote no model.onnx to the folder in HONE_RETRAIN_OUT"),
        ("sleeps", 1, {}, "took longer than retrain.minutes"),
        ("good", 60, {"command": "no-such-program"}, "there is no program 'no-such-program'"),
    ],
)
def test_a_training_that_fails_says_why(
    tmp_path: Path, what: str, seconds: float, retrain: dict[str, Any], words: str
) -> None:
    with pytest.raises(HoneError) as error:
        out_of(tmp_path, what, seconds, **retrain)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_function_trains_as_well(tmp_path: Path) -> None:
    file = write_project(tmp_path / "p")
    content = yaml.safe_load(file.read_text())
    file.write_text(yaml.safe_dump({**content, "retrain": {"call": "learn:again"}}))
    (tmp_path / "p" / "learn.py").write_text(
        "import shutil\ndef again(out):\n    shutil.copy('other.onnx', out / 'model.onnx')\n"
    )
    (tmp_path / "out").mkdir()
    log = tmp_path / "train.log"
    assert trained(load_recipe(file), tmp_path / "out", log, time.monotonic() + 60) == tmp_path / "out" / "model.onnx"
    (tmp_path / "p" / "other.onnx").unlink()
    with pytest.raises(HoneError, match="learn:again failed"):
        trained(load_recipe(file), tmp_path / "out", log, time.monotonic() + 60)


def test_drift_is_looked_for_once_an_hour(tmp_path: Path) -> None:
    times = iter([0.0, 10.0, 3700.0])
    looks = DriftLooks(tmp_path, lambda: next(times))
    proven(tmp_path, "a")
    with pytest.raises(HoneError, match="holds no reference"):
        looks("dense")
    assert looks("dense") == ""
    with pytest.raises(HoneError, match="holds no reference"):
        looks("dense")


def test_people_hear_of_a_failure_once(tmp_path: Path) -> None:
    alerts: list[Alert] = []
    file = write_project(tmp_path / "p", new_rows={"file": "rows.npz", "rows": 1})
    (tmp_path / "p" / "rows.npz").write_bytes(b"none")
    Watch([file], lambda _: None, alerts.append).run(0.0, rounds=3)
    assert [alert.state for alert in alerts] == ["failed"]
    assert "rows.npz" in alerts[0].lines[0]
