"""Driving a rollout at a service of this process: what ends it, what it leaves behind, what is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from hone import store
from hone.cli.main import cli
from hone.errors import StoreError
from hone.lifecycle.registry.history import changes
from hone.lifecycle.rollout.begin import begin
from hone.lifecycle.rollout.drive import Driver
from hone.lifecycle.rollout.state import Rollout, RolloutError, ask_driver, only_one, rollout_of
from hone.services.access.api_keys import add_key
from hone.services.arms import evidence
from hone.services.http.failures import InferenceError
from hone.services.status.asking import Access
from hone.services.status.splitting import RefusedError, RemoteSplit, Share
from tests.models.dense import dense_artifact
from tests.servers import caller
from tests.services.arms.serving import BODY, Worker, serving

SPLIT = "/v2/repository/models/dense/split"
EASY = {"errors": 0.5, "p99": 0.9}
"""A few requests prove it."""


@pytest.fixture(autouse=True)
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "FEWEST", 20)
    for seed, version in enumerate("ab"):
        store.put(dense_artifact(tmp_path / version, variant=version, seed=seed), "dense", version)


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    return Worker(tmp_path / "shared", "dense:a")


@contextmanager
def asked(client: httpx.Client) -> Iterator[list[int]]:
    """Ask a service on and on; yield the statuses of its answers."""
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        with caller(client.base_url) as own:
            while not stop.is_set():
                statuses.append(own.post("/predict", json=BODY).status_code)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield statuses
    finally:
        stop.set()
        thread.join()


def begun(client: httpx.Client, access: Access = Access(), **fields: Any) -> Driver:  # noqa: B008 - frozen
    given = {"steps": (50, 100), "window_s": 0.0, "patience_s": 60.0, "limits": EASY, "reason": "a test", **fields}
    rollout = begin("dense", "b", str(client.base_url).rstrip("/"), access, promoting=False, **given)
    return Driver(rollout, access, lambda _: None, poll_s=0.02, blind_s=0.3)


def told() -> list[str]:
    return [one.details["reason"] for one in changes("dense") if one.action == "rollout"]


def now() -> Rollout:
    found = rollout_of("dense")
    assert found is not None
    return found


def test_version_that_does_well_gets_all_requests_and_every_step_is_in_the_history(worker: Worker) -> None:
    with serving(worker) as client, asked(client) as statuses:
        begun(client).run()
        assert client.post("/predict", json=BODY).json()["model"] == "dense:b"
        assert client.get(SPLIT).json()["split"] is None
    assert set(statuses) == {200}
    assert now().status == "promoted"
    assert told() == [f"{what} (a test)" for what in ("50 % of the requests", "100 % of the requests",
                                                      "all requests, without a split")]  # fmt: skip
    assert json.loads(changes("dense")[1].details["evidence"])[0]["verdict"] == "good"


def test_version_that_fails_is_rolled_back_at_once(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: Any, **__: Any) -> Any:
        raise InferenceError("broken")

    with serving(worker) as client, asked(client) as statuses:
        driver = begun(client, limits={"errors": 0.01, "p99": 0.02}, steps=(30, 100))
        weigh = driver._weigh

        def weigh_and_break(percent: float) -> None:
            weigh(percent)
            monkeypatch.setattr(worker.hub.get("dense", "b"), "infer", fails)

        monkeypatch.setattr(driver, "_weigh", weigh_and_break)
        with pytest.raises(RolloutError, match="is rolled back: errors") as caught:
            driver.run()
        assert caught.value.exit_code == 3
        assert client.get(SPLIT).json()["split"] is None
        assert client.get("/v2/models/dense").json()["versions"] == ["a"]
        before = len(statuses)
        for _ in range(20):
            assert client.post("/predict", json=BODY).json()["model"] == "dense:a"
    assert set(statuses[before + 1 :]) <= {200}
    assert now().status == "rolled back"
    assert told()[-1].startswith("rolled back: errors")


def test_too_few_requests_pause_it_and_resume_goes_on(worker: Worker) -> None:
    with serving(worker) as client:
        driver = begun(client, patience_s=0.1)
        with pytest.raises(RolloutError, match="is paused, 50 % of the requests stay with it: not enough") as caught:
            driver.run()
        assert caught.value.exit_code == 4
        assert client.get(SPLIT).json()["split"]["arms"][1]["weight"] == 50
        with pytest.raises(RolloutError, match=r"a rollout of dense:b is paused; resume it"):
            begun(client)
        with asked(client):
            Driver(now().becoming(since=0.0, patience_s=60.0), Access(), lambda _: None, poll_s=0.02).run()
    assert now().status == "promoted"


@pytest.mark.parametrize("jump", [86_400.0, -86_400.0])
def test_clock_that_jumps_neither_ends_a_window_nor_keeps_it_open(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    at, clock, seen = [0.0], time.time, []

    def said(text: str) -> None:
        at[0] += jump
        seen.append((time.monotonic(), text))

    with serving(worker) as client, asked(client):
        driver = replace(begun(client, window_s=0.5), say=said)
        monkeypatch.setattr(time, "time", lambda: clock() + at[0])
        driver.run()
    steps = [moment for moment, text in seen if "% of the requests go to" in text]
    ends = [moment for moment, text in seen if text.startswith("good: ")]
    assert len(steps) == len(ends) == 2
    assert all(end - begin >= 0.5 for begin, end in zip(steps, ends, strict=True))
    assert now().status == "promoted"


def test_lost_metrics_count_against_the_new_version(worker: Worker) -> None:
    with serving(worker) as client:
        driver = begun(client)
        driver._weigh(50)
        driver.rollout = driver.rollout.becoming(since=1e12)
        RemoteSplit(driver.rollout.url, "dense", Access()).set([Share("stable", "a", 90), Share("canary", "b", 10)])
        with pytest.raises(RolloutError, match="nothing is known of it: the split is no longer the one") as caught:
            driver._watch()
        assert caught.value.exit_code == 4
        assert client.post("/predict", json=BODY).json()["model"] == "dense:a"
    assert now().status == "rolled back"


def test_service_that_is_gone_is_told_and_left_to_abort(worker: Worker) -> None:
    with serving(worker) as client:
        driver = begun(client)
        driver._weigh(50)
        driver.rollout = driver.rollout.becoming(since=1e12)
    with pytest.raises(RolloutError, match=r"it still gets 50 % .* hone rollout abort dense tries again"):
        driver._watch()
    assert now().status == "paused"


@pytest.mark.parametrize("wish", ["pause", "abort"])
def test_other_command_pauses_or_aborts_it(worker: Worker, wish: Any) -> None:
    with serving(worker) as client:
        driver = begun(client)
        driver._weigh(50)
        driver.rollout = driver.rollout.becoming(since=1e12)
        ask_driver("dense", wish)
        with pytest.raises(RolloutError, match="is paused" if wish == "pause" else "was aborted"):
            driver._watch()
        assert (client.get(SPLIT).json()["split"] is None) == (wish == "abort")
    assert now().status == {"pause": "paused", "abort": "aborted"}[wish]


def test_two_at_once_are_one_too_many() -> None:
    with only_one("dense"):
        with pytest.raises(RolloutError, match="is being driven already by process") as caught, only_one("dense"):
            pass
        assert caught.value.is_driven
    with only_one("dense"):
        pass


def test_wrong_beginnings_change_nothing(worker: Worker, tmp_path: Path) -> None:
    with serving(worker) as client:
        for steps in ((50, 25, 100), (0, 100), (5, 50), (100, 200)):
            with pytest.raises(RolloutError, match="they must grow, from over 0 to 100"):
                begun(client, steps=steps)
        with pytest.raises(StoreError):
            begin("dense", "gone", str(client.base_url), Access(), steps=(100,), promoting=False)
        with pytest.raises(StoreError, match="'dense' has no candidate"):
            begin("dense", "candidate", str(client.base_url), Access(), steps=(100,), promoting=False)
        with pytest.raises(RolloutError, match="dense:a answers all requests already"):
            begin("dense", "a", str(client.base_url), Access(), steps=(100,), promoting=False)
        with pytest.raises(RefusedError, match="no model 'other' is loaded"):
            store.put(dense_artifact(tmp_path / "other", name="other"), "other", "b")
            begin("other", "b", str(client.base_url), Access(), steps=(100,), promoting=False)
        client.post(SPLIT, json={"parameters": {"arms": [{"version": "a", "weight": 100}]}})
        with pytest.raises(RolloutError, match="are split already"):
            begun(client)
    assert rollout_of("dense") is None


def test_key_without_the_scope_begins_nothing(tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    reader = add_key(keys, "reader", ("predict",))
    with serving(Worker(tmp_path / "shared", "dense:a", api_keys=str(keys))) as client:
        with pytest.raises(RolloutError, match=r"is not begun: .*\(403\)"):
            begun(client, Access(reader)).run()
        with pytest.raises(RefusedError, match="401"):
            begun(client)
    assert now().status == "aborted"


def test_commands_split_show_and_clear_and_tell_where_a_rollout_stands(worker: Worker) -> None:
    def hone(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, words)
        return done.exit_code, done.output

    with serving(worker) as client:
        url = ("--url", str(client.base_url))
        code, output = hone("split", "set", "dense", "--arm", "a=75", "--arm", "b=25", "--sticky", "X-Caller-Key", *url)
        assert (code, "by the header X-Caller-Key" in output) == (0, True), output
        assert hone("split", "show", "dense", *url)[1].splitlines()[2].split()[:3] == ["b", "b", "25"]
        assert hone("split", "set", "dense", "--arm", "a=75", *url)[0] == 1
        assert hone("split", "clear", "dense", *url)[1] == "dense:a answers all requests\n"
        assert hone("split", "show", "dense", *url)[1] == "the requests for 'dense' are not split\n"
        assert hone("rollout", "status", "dense")[0] == 1
        done = hone(
            "rollout", "start", "dense", "--to", "b", "--no-promotion", "--window", "0s", "--patience", "0s", *url
        )
        assert (done[0], "is paused" in done[1]) == (4, True), done
        assert "now      undecided: not enough evidence" in hone("rollout", "status", "dense")[1]
        assert json.loads(hone("rollout", "status", "dense", "--json")[1])["now"]["arm"] == "canary"
        assert hone("rollout", "abort", "dense")[1] == "the rollout of dense:b is aborted\n"
        assert client.get(SPLIT).json()["split"] is None
        assert hone("rollout", "resume", "dense")[0] == 1
    assert "5 % of the requests" in hone("rollout", "history", "dense")[1]
