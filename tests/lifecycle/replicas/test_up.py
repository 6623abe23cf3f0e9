"""`hone up` with real services: a rolling rollout under load, a killed driver, and a killed supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from hone.lifecycle.replicas.fleet import DownError, Fleet
from hone.lifecycle.replicas.state import is_kept, keeper, seen_of, wanted_of
from hone.lifecycle.rollout.state import rollout_of
from hone.services.launch import free_port
from tests.lifecycle.registry.versions import proven
from tests.servers import HONE, use_store
from tests.services.test_operations import Load

from .running import needs_nginx

pytestmark = [pytest.mark.slow, needs_nginx, pytest.mark.timeout(600)]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    home = tmp_path / "shop"
    use_store(home)
    for version, answers in (("a", None), ("b", None), ("c", 1)):
        proven(tmp_path, version, answers=answers)
    variables = {**os.environ, "BENTOML_HOME": str(home), "HONE_ACCESS_LOG": "off"}
    yield variables
    with contextlib.suppress(OSError, ValueError):
        if is_kept("dense"):
            os.kill(keeper("dense"), signal.SIGTERM)
    until(lambda: not is_kept("dense"), "all has ended")


def hone(variables: dict[str, str], *words: str, wait: bool = True) -> Any:
    process = subprocess.Popen(
        [HONE, *words], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if not wait:
        return process
    output, _ = process.communicate(timeout=300)
    return subprocess.CompletedProcess(words, process.returncode, output)


def until(holds: Any, what: str, timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def versions() -> list[str]:
    try:
        return sorted(life.version for life in Fleet("dense").seen.lives if life.state == "ready")
    except DownError:
        return []


def test_rolling_under_load_a_version_that_is_wrong_and_kills_of_everything(shop: dict[str, str]) -> None:
    port = free_port()
    done = hone(shop, "up", "dense:a", "--replicas", "2", "--port", str(port), "--detach")
    assert done.returncode == 0, done.stdout
    rolling = ("rollout", "start", "dense", "--strategy", "rolling", "--window", "1s", "--no-promotion")
    with Load(port) as load:
        # Killed in the middle of a step: nobody notices, and another one goes on.
        killed = hone(shop, *rolling, "--to", "b", "--p99", "0.9", "--errors", "0.5", wait=False)
        until(lambda: len(wanted_of("dense").versions) == 2, "it has begun")  # type: ignore[union-attr]
        killed.kill()
        killed.communicate()
        done = hone(shop, "rollout", "resume", "dense")
        assert done.returncode == 0, done.stdout
        until(lambda: versions() == ["b", "b"], "b serves alone")
        # Its golden rows are another model's: it never gets a request.
        done = hone(shop, *rolling, "--to", "c")
        assert done.returncode == 3 and "dense:c doesn't turn ready" in done.stdout, done.stdout
        assert versions() == ["b", "b"]
    assert load.wrong == []
    assert load.answered > 100
    assert rollout_of("dense").status == "rolled back"  # type: ignore[union-attr]
    # Whatever kills the supervisor ends all that it started; the name alone goes on with what was rolled out.
    seen = seen_of("dense")
    assert seen is not None
    os.kill(seen.pid, signal.SIGKILL)
    started = [seen.balancer, *(life.pid for life in seen.lives)]
    until(lambda: not any(map(psutil.pid_exists, started)), "nothing is left")
    done = hone(shop, "up", "dense", "--port", str(port), "-d")
    assert done.returncode == 0, done.stdout
    assert versions() == ["b", "b"]
    done = hone(shop, "down", "dense")
    assert (done.returncode, done.stdout) == (0, "'dense' is down\n")
    assert wanted_of("dense") is None
