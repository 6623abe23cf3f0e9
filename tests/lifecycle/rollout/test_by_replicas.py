"""Rollouts over replicas behind a real nginx, with stand-ins for the service: steps, evidence, ways back, kills."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hone import store
from hone.cli.main import cli
from hone.lifecycle.replicas import fleet as fleets
from hone.lifecycle.replicas.counts import Scraped, done_of
from hone.lifecycle.replicas.state import wanted_of
from hone.lifecycle.rollout.begin import begin
from hone.lifecycle.rollout.by_replicas import ByReplicas
from hone.lifecycle.rollout.drive import Driver
from hone.lifecycle.rollout.state import Rollout, RolloutError, ask_driver, rollout_of
from hone.services.arms import evidence
from hone.services.status.asking import Access
from tests.lifecycle.replicas.running import Caller, Up, hurry, needs_nginx, up
from tests.models.dense import dense_artifact

pytestmark = needs_nginx
EASY = {"errors": 0.5, "p99": 0.9}
"""A few requests prove it."""


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Up]:
    for version in ("a", "b", "fails", "sick"):
        store.put(dense_artifact(tmp_path / version, variant=version), "dense", version)
    hurry(monkeypatch)
    monkeypatch.setattr(evidence, "FEWEST", 20)
    with up("dense:a") as found:
        yield found


def begun(strategy: Any, to: str = "b", **fields: Any) -> Driver:
    given = {"steps": (50, 100), "window_s": 0.0, "patience_s": 60.0, "limits": EASY, **fields}
    rollout = begin("dense", to, "", Access(), strategy=strategy, promoting=False, **given)
    return Driver(rollout, Access(), lambda _: None, poll_s=0.02, blind_s=0.3)


def now() -> Rollout:
    found = rollout_of("dense")
    assert found is not None
    return found


def runs() -> tuple[dict[str, float], list[str]]:
    """Return the shares that are wanted, and the versions of the replicas."""
    wanted = wanted_of("dense")
    assert wanted is not None
    return wanted.shares, [replica.version for replica in wanted.replicas]


@pytest.mark.parametrize("strategy", ["canary", "blue-green", "rolling"])
def test_version_that_does_well_takes_over_without_a_broken_request(running: Up, strategy: str) -> None:
    with Caller(running.port) as caller:
        begun(strategy).run()
        running.wait("the old ones ended", lambda: len(running.states()) == 2)
    assert caller.broken == []
    assert {status for status, _ in caller.answers} == {200}
    assert {version for _, version in caller.answers} == {"a", "b"}
    assert runs() == ({"b": 100.0}, ["b", "b"])
    assert (now().status, now().replicas) == ("promoted", 2)
    assert now().steps == ((100.0,) if strategy == "blue-green" else (50.0, 100.0))


@pytest.mark.parametrize("strategy", ["canary", "rolling"])
def test_version_that_fails_goes_back_and_all_replicas_are_the_old_version_again(running: Up, strategy: str) -> None:
    with Caller(running.port) as caller:
        driver = begun(strategy, "fails", limits={"errors": 0.01, "p99": 0.9}, window_s=60.0)
        with pytest.raises(RolloutError, match="dense:fails is rolled back: errors") as caught:
            driver.run()
        assert caught.value.exit_code == 3
        running.wait("it is as it was", lambda: list(running.states().values()) == ["ready"] * 2)
        caller.answers.clear()
        running.wait("some answers", lambda: sum(caller.answers.values()) > 20)
        assert set(caller.answers) == {(200, "a")}
    assert caller.broken == []
    assert runs() == ({"a": 100.0}, ["a", "a"])
    assert now().status == "rolled back"


def test_version_that_is_never_ready_gets_no_request(running: Up) -> None:
    with Caller(running.port) as caller, pytest.raises(RolloutError, match="dense:sick doesn't turn ready: not ready"):
        begun("rolling", "sick").run()
    assert {version for _, version in caller.answers} == {"a"}
    assert runs() == ({"a": 100.0}, ["a", "a"])
    assert now().status == "rolled back"


def test_quiet_hour_is_enough_for_rolling_and_pauses_a_canary(running: Up) -> None:
    begun("rolling").run()
    assert runs()[1] == ["b", "b"]
    with pytest.raises(RolloutError, match="is paused, 50 % of the requests stay with it: not enough"):
        begun("canary", "a", patience_s=0.1).run()
    assert (runs()[0], now().status) == ({"b": 50.0, "a": 50.0}, "paused")
    shown = CliRunner().invoke(cli, ["rollout", "status", "dense"]).output
    assert "(canary): paused" in shown and "undecided: not enough evidence" in shown, shown
    done = CliRunner().invoke(cli, ["rollout", "abort", "dense"])
    assert (done.exit_code, runs()[0]) == (0, {"b": 100.0}), done.output


def test_abort_is_heard_while_replicas_start(running: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleets, "FALSE_STARTS", 99)
    driver = begun("blue-green", "sick")
    asking = threading.Timer(0.3, ask_driver, ("dense", "abort"))
    asking.start()
    with pytest.raises(RolloutError, match="the rollout of dense:sick was aborted"):
        driver.run()
    asking.join()
    assert runs() == ({"a": 100.0}, ["a", "a"])


def test_shares_that_somebody_else_changed_count_against_it(running: Up) -> None:
    driver = begun("canary", window_s=60.0)
    driver._weigh(50)
    driver.rollout = driver.rollout.becoming(since=1e12)
    running.fleet.change({"a": 90.0, "b": 10.0})
    with pytest.raises(RolloutError, match="nothing is known of it: the shares of the replicas are no longer"):
        driver._watch()
    assert runs() == ({"a": 100.0}, ["a", "a"])


DRIVE = """
import sys
from hone.lifecycle.replicas import fleet
from hone.lifecycle.rollout.drive import Driver
from hone.lifecycle.rollout.state import only_one, rollout_of
from hone.services.arms import evidence
from hone.services.status.asking import Access
evidence.FEWEST = 20
with only_one("dense"):
    print("drives", flush=True)
    Driver(rollout_of("dense"), Access(), lambda text: print(text, flush=True), poll_s=0.05).run()
"""


@pytest.mark.parametrize("strategy", ["blue-green", pytest.param("rolling", marks=pytest.mark.slow)])
def test_killed_driver_leaves_requests_as_they_are_and_another_one_goes_on(running: Up, strategy: str) -> None:
    begun(strategy, window_s=0.5)
    with Caller(running.port) as caller:
        command = [sys.executable, "-c", DRIVE]
        killed = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert killed.stdout is not None and killed.stdout.readline() == "drives\n"
        # Its replicas are started, or just about to get their share.
        running.wait("it has begun", lambda: len(running.fleet.wanted.versions) == 2)
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
        assert now().status == "running"
        before = sum(caller.answers.values())
        running.wait("answers go on", lambda: sum(caller.answers.values()) > before + 50)
        resumed = subprocess.run(command, capture_output=True, text=True)
        assert resumed.returncode == 0, resumed.stderr
        running.wait("the old ones ended", lambda: len(running.states()) == 2)
    assert caller.broken == []
    assert {status for status, _ in caller.answers} == {200}
    assert (now().status, runs()) == ("promoted", ({"b": 100.0}, ["b", "b"]))


def test_wrong_beginnings_change_nothing(running: Up) -> None:
    def hone(*words: str) -> str:
        done = CliRunner().invoke(cli, ["rollout", "start", "dense", "--no-promotion", *words])
        assert done.exit_code != 0
        return done.output

    assert "dense:a answers all requests already" in hone("--to", "a")
    assert "no version 'gone'" in hone("--to", "gone", "--strategy", "rolling")
    assert "--steps: rolling has its own" in hone("--to", "b", "--strategy", "rolling", "--steps", "100")
    assert "nginx can't" in hone("--to", "b", "--sticky", "X-Caller")
    assert "blue-green is for the replicas" in hone("--to", "b", "--strategy", "blue-green", "--url", "http://a")
    assert rollout_of("dense") is None
    assert runs() == ({"a": 100.0}, ["a", "a"])


@pytest.mark.parametrize(
    ("replicas", "percent", "wanted"), [(2, 5, 1), (2, 25, 1), (4, 25, 2), (2, 50, 2), (3, 75, 3), (3, 100, 3)]
)
def test_no_new_replica_of_a_canary_gets_more_than_an_old_one_while_there_are_fewer(
    replicas: int, percent: float, wanted: int
) -> None:
    rollout = Rollout.model_construct(replicas=replicas)
    assert ByReplicas("dense", "canary")._needed(rollout, percent) == wanted


def test_counts_are_those_of_the_metrics() -> None:
    text = "\n".join(
        [
            'hone_requests_total{model="dense",version="a",protocol="raw",status="200"} 90.0',
            'hone_requests_total{model="dense",version="a",protocol="raw",status="400"} 6.0',
            'hone_requests_total{model="dense",version="a",protocol="raw",status="503"} 4.0',
            'hone_requests_total{model="other",version="a",protocol="raw",status="503"} 4.0',
            *(
                f'hone_request_seconds_bucket{{model="dense",version="a",le="{bound}"}} {count}'
                for bound, count in (("0.001", 40.0), ("0.01", 99.0), ("+Inf", 100.0))
            ),
        ]
    )
    done = done_of(text, "dense")
    assert (done.requests, done.errors, done.answered, sum(done.bins)) == (94, 4, 90, 90)
    assert (done.beyond(0.0005), done.bins[-1]) == (90, 1)
    found = Scraped(**done.plain())
    # One of ninety is more than a hundredth; two hundredths are at most what is beyond ten milliseconds.
    assert found.beyond(found.bound_above(0.02)) == 1
    assert found.beyond(found.bound_above(0.5)) == 60 or found.beyond(found.bound_above(0.5)) == 1
    assert json.loads(json.dumps(done.plain()))["requests"] == 94
