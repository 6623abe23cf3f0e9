"""Rollouts at a real service of two workers, under load: to the end, back again, and after a kill."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hone.lifecycle.registry.history import changes
from hone.store.registry import change, pointer_to, registered
from tests.lifecycle.registry.versions import proven, with_terms
from tests.servers import HONE, Server, server, use_store
from tests.services.test_operations import Load

pytestmark = pytest.mark.slow
LIMITS = ("--errors", "0.1", "--p99", "0.3")
"""So wide that a few hundred requests prove it: a busy host makes some answers slow, of any version."""


@dataclass
class Shop:
    """A service of `dense` at `dense@champion`, and commands against it."""

    home: Path
    running: Server

    def hone(self, *words: str, wait: bool = True, **environment: str) -> Any:
        variables = {**os.environ, "BENTOML_HOME": str(self.home), **environment}
        process = subprocess.Popen(
            [HONE, *words], env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if not wait:
            return process
        output, _ = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, output)

    def start(self, *more: str, steps: str = "20,60,100", wait: bool = True) -> Any:
        url = f"http://127.0.0.1:{self.running.port}"
        words = ("rollout", "start", "dense", "--to", "b", "--url", url, "--steps", steps, "--window", "1s")
        return self.hone(*words, "--patience", "60s", "--reason", "a test", *more, wait=wait)

    def shown(self) -> Any:
        return self.running.client.get("/v2/repository/models/dense/split").json()["split"]

    def answers(self) -> set[str]:
        found = [self.running.client.get("/v2/models/dense").json()["parameters"]["tag"] for _ in range(20)]
        return set(found)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    home = tmp_path / "shop"
    use_store(home)
    monkeypatch.setenv("BENTOML_HOME", str(home))
    first = proven(tmp_path, "a")
    with_terms(proven(tmp_path, "b"))
    change("dense", lambda before: before.pointing({"champion": pointer_to(first)}))
    command = [HONE, "serve", "dense@champion", "--port", "{port}", "--workers", "2"]
    with server(command, home, HONE_ACCESS_LOG="off") as running:
        yield Shop(home, running)


def test_version_that_does_well_is_promoted_step_by_step_without_a_failed_request(shop: Shop) -> None:
    with Load(shop.running.port) as load:
        done = shop.start(*LIMITS)
    assert done.returncode == 0, done.stdout
    assert load.wrong == []
    assert registered("dense").aliases["champion"].version == "b"
    assert shop.answers() == {"dense:b"}
    assert shop.shown() is None
    steps = [one.details["reason"] for one in changes("dense") if one.action == "rollout"]
    assert [step.partition(" (")[0] for step in steps] == [
        "20 % of the requests",
        "60 % of the requests",
        "100 % of the requests",
        "all requests, without a split",
    ]
    assert json.loads([one for one in changes("dense") if one.action == "rollout"][1].details["evidence"])
