"""Replicas behind a real nginx: dealt to while they are ready, started again when they end, given up in the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest
from click.testing import CliRunner

from hone import store
from hone.cli.main import cli
from hone.errors import HoneError, UnavailableError
from hone.lifecycle.replicas import balancer
from hone.lifecycle.replicas.balancer import configuration, require_nginx
from hone.lifecycle.replicas.fleet import Fleet, Place, first_wanted
from hone.lifecycle.replicas.life import Patience
from hone.lifecycle.replicas.state import Replica, ReplicasError, Wanted, folder_of, keeping, want, wanted_of
from hone.lifecycle.replicas.supervise import Supervisor, serve_command
from hone.services.launch import free_port
from hone.services.routes.paths import PATHS
from tests.models.dense import dense_artifact

from .running import QUICK, Caller, hurry, needs_nginx, up

VERSIONS = ("a", "b", "fails", "sick", "ends")


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in VERSIONS:
        store.put(dense_artifact(tmp_path / version, variant=version), "dense", version)
    hurry(monkeypatch)


def groups(*versions: str) -> dict[str, tuple[float, list[Replica]]]:
    return {
        version: (100 / len(versions), [Replica(id="r1", version=version, port=3100, grpc_port=9100)])
        for version in versions
    }


@needs_nginx
@pytest.mark.parametrize("grpc_port", [None, 9000])
@pytest.mark.parametrize("versions", [("a",), ("a", "b")])
def test_nginx_takes_the_configuration(tmp_path: Path, versions: tuple[str, ...], grpc_port: int | None) -> None:
    text = configuration(tmp_path, "127.0.0.1", 3000, grpc_port, groups(*versions))
    (tmp_path / "nginx.conf").write_text(text)
    command = [require_nginx(), "-t", "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert ("split_clients" in text) == (len(versions) > 1)
    assert ("grpc_pass" in text) == (grpc_port is not None)
    assert "/tmp/" not in text.replace(str(tmp_path), "") and "model:3000" not in text


def test_public_paths_are_those_of_compose(tmp_path: Path) -> None:
    text = configuration(tmp_path, "::1", 3000, None, groups("a", "b"))
    assert "listen [::1]:3000;" in text
    for twin in ("", "/parting"):
        exact = re.findall(rf"location = {twin}(/\S+) \{{ (?:internal.*)?proxy_pass", text)
        prefixes = re.findall(rf"location {twin}(/\S+) \{{ (?:internal.*)?proxy_pass", text)
        asked = [path.of("digits", "1") for path in PATHS]
        passed = [one in exact or one.startswith(tuple(p for p in prefixes if "parting" not in p)) for one in asked]
        assert passed == [path.outside for path in PATHS]


def test_source_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "other.conf"
    source.write_text(balancer.SOURCE.read_text().replace("listen 8080;", "listen 80;"))
    monkeypatch.setattr(balancer, "SOURCE", source)
    with pytest.raises(ReplicasError, match="'listen 8080;' is there 0 times"):
        configuration(tmp_path, "127.0.0.1", 3000, None, groups("a"))
    with pytest.raises(ReplicasError, match="nginx can't take a folder of such a name"):
        configuration(tmp_path / 'a"b', "127.0.0.1", 3000, None, groups("a"))


def test_missing_nginx_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(balancer.shutil, "which", lambda *_, **__: None)
    with pytest.raises(UnavailableError, match="nginx is not installed; apt install nginx"):
        require_nginx()
    done = CliRunner().invoke(cli, ["up", "dense"])
    assert (done.exit_code, done.output.count("\n")) == (1, 1)


def test_wanted_is_checked(stored: None) -> None:
    made, why = first_wanted("dense:a", 2, Place(port=3000), ("--workers", "2"))
    assert (len(made.replicas), made.shares, why.startswith("the winner")) == (2, {"a": 100.0}, True)
    assert wanted_of("dense") == made
    command = serve_command(made.replicas[0], made)
    assert command[3:5] == ["serve", "dense:a"] and command[-2:] == ["--workers", "2"]
    for shares in ({"a": 90.0}, {"a": 50.0, "b": 50.0}, {"a": 100.0, "b": 0.0}):
        with pytest.raises(ValueError, match=r"shares|no replica of b"):
            Wanted.model_validate({**made.model_dump(), "shares": shares})
    (folder_of("dense") / "wanted.json").write_text("{")
    with pytest.raises(ReplicasError, match=r"wanted.json: "):
        Fleet("dense").wanted  # noqa: B018


def test_name_alone_goes_on_with_what_ran(stored: None) -> None:
    first, _ = first_wanted("dense:b", 3, Place(), ())
    again, why = first_wanted("dense", None, Place(port=4000), ())
    assert (again.versions, len(again.replicas), again.port, why) == (("b",), 3, 4000, "as it was")
    assert {one.id for one in again.replicas}.isdisjoint({one.id for one in first.replicas})
    two = (*again.replicas, again.replicas[0].model_copy(update={"id": "r9", "version": "a"}))
    want(again.model_copy(update={"replicas": two, "shares": {"b": 75.0, "a": 25.0}}))
    kept, _ = first_wanted("dense", None, Place(), ())
    assert (kept.shares, len(kept.replicas)) == ({"b": 75.0, "a": 25.0}, 4)
    with pytest.raises(ReplicasError, match="a rollout of 'dense' isn't over"):
        first_wanted("dense:a", 2, Place(), ())


def test_address_for_others_needs_keys(stored: None) -> None:
    with pytest.raises(HoneError, match=r"refusing to serve 0\.0\.0\.0 without keys"):
        Place("0.0.0.0").check({})
    Place("0.0.0.0", 0).check({"HONE_INSECURE": "1"})


def test_waits_double_up_to_a_bound() -> None:
    assert [Patience().before(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]


def runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@needs_nginx
def test_replica_that_is_killed_is_passed_over_and_started_again(stored: None) -> None:
    with up("dense:a") as running:
        first = running.fleet.seen.lives[0]
        assert first.pid
        os.kill(first.pid, signal.SIGKILL)
        running.wait("it is back", lambda: running.fleet.seen.lives[0].restarts == 1)
        running.wait("it is ready", lambda: set(running.states().values()) == {"ready"})
        running.wait("it is forgiven", lambda: running.fleet.seen.lives[0].failures == 0)
        assert any("r1 (dense:a) is started again: ended with status -9" in line for line in running.said)
        # nginx, too.
        balancer_process = running.fleet.seen.balancer
        assert balancer_process
        left = psutil.Process(balancer_process).children()
        os.kill(balancer_process, signal.SIGKILL)
        with httpx.Client(base_url=f"http://127.0.0.1:{running.port}") as client:

            def answers() -> bool:
                try:
                    return client.post("/predict", json={}).status_code == 200
                except httpx.TransportError:
                    return False

            running.wait("another is there", lambda: running.fleet.seen.balancer not in (0, None, balancer_process))
            running.wait("it answers", answers)
            assert left
            running.wait("nothing is left of the first", lambda: not any(map(runs, left)))
            assert client.get("/metrics").status_code == client.post("/parting/predict").status_code == 404
        with pytest.raises(ReplicasError, match="'dense' is up already, by process"), keeping("dense"):
            pass
        found = CliRunner().invoke(cli, ["up", "dense", "--status"])
        assert found.exit_code == 0 and found.output.count("ready") == 2, found.output
    assert CliRunner().invoke(cli, ["up", "dense", "--status"]).exit_code == 3
    assert "isn't up" in CliRunner().invoke(cli, ["down", "dense"]).output


@needs_nginx
@pytest.mark.parametrize(
    ("version", "why"),
    [("ends", "ended with status 1: no luck"), ("sick", "not ready: other answers than its proof's")],
)
def test_version_that_never_turns_ready_is_given_up(stored: None, version: str, why: str) -> None:
    first_wanted(f"dense:{version}", 1, Place(port=free_port()), ())
    said: list[str] = []
    with pytest.raises(ReplicasError, match=f"no replica of 'dense' starts: {why}"):
        Supervisor("dense", said.append, QUICK).run(threading.Event())
    assert [line.partition(":")[0] for line in said] == ["r1 (dense"] * 3
    assert "is given up" in said[-1]


@needs_nginx
def test_shares_change_without_a_broken_request_on_connections_that_are_kept(stored: None) -> None:
    with up("dense:a") as running, Caller(running.port) as caller:
        running.fleet.add("b", 1)
        running.fleet.wait_ready("b", 1, lambda: None)
        for share in (30.0, 60.0, 100.0):
            running.fleet.change({"a": 100 - share, "b": share})
            running.fleet.wait_dealt(lambda: None)
            before = sum(caller.answers.values())
            running.wait("some answers", lambda seen=before: sum(caller.answers.values()) > seen + 50)
        a = [replica.id for replica in running.fleet.wanted.of("a")]
        running.fleet.change({"b": 100.0}, without=a)
        running.wait("the others ended", lambda: running.states().keys().isdisjoint(a))
        time.sleep(0.1)
    assert caller.broken == []
    assert {status for status, _ in caller.answers} == {200}
    assert {version for _, version in caller.answers} == {"a", "b"}
