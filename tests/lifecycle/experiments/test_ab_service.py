"""An A/B test at a real service of two workers: sticky callers, posted figures, kill -9 in the middle, a winner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from hone.services.launch import free_port
from hone.store.registry import change, pointer_to, registered
from tests.lifecycle.registry.versions import proven, with_terms
from tests.servers import HONE, Server, server, use_store

pytestmark = pytest.mark.slow
BODY = {"inputs": {"features": [[0, 1, 2, 3]]}}
COMMAND = [HONE, "serve", "dense@champion", "--port", "{port}", "--workers", "2"]
CALLERS = 330


def test_a_winner_is_found_over_a_restart_and_callers_keep_their_arms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, port = tmp_path / "shop", free_port()
    kept = home / "kept"
    use_store(home)
    monkeypatch.setenv("BENTOML_HOME", str(home))
    first = proven(tmp_path, "a")
    with_terms(proven(tmp_path, "b"))
    change("dense", lambda before: before.pointing({"champion": pointer_to(first)}))
    settings = {"HONE_FEEDBACK_DIR": str(kept), "HONE_FEEDBACK_FLUSH_S": "0.5"}

    def hone(*words: str) -> Any:
        return subprocess.run(
            [HONE, *words], env={**os.environ, **settings}, capture_output=True, text=True, timeout=120
        )

    def units() -> int:
        report = json.loads(hone("ab", "status", "dense", "--json").stdout)
        return sum(arm["units"] for arm in report["arms"])

    with server(COMMAND, home, port=port, **settings) as running:
        begun = hone(
            "ab", "start", "dense", "--to", "b", "--url", f"http://127.0.0.1:{port}", "--sticky", "X-User",
            "--metric", "revenue", "--zero", "revenue", "--also", "latency", "--guard", "errors=0.1", "--units", "600",
        )  # fmt: skip
        assert begun.returncode == 0, begun.stdout + begun.stderr
        time.sleep(5.5)  # answers near the start belong to nobody: services' clocks may differ
        before = {caller: asked(running.client, caller) for caller in range(CALLERS // 2)}
        post(running.client, before)
        until(lambda: units() == len(before))
        kill(running)
    with server(COMMAND, home, port=port, **settings) as running:
        assert {caller: asked(running.client, caller, "again") for caller in before} == before
        more = {caller: asked(running.client, caller) for caller in range(CALLERS // 2, CALLERS)}
        post(running.client, more)
        until(lambda: units() == CALLERS)
        shown = hone("ab", "status", "dense", "--out", str(tmp_path / "ab.html"))
        assert "b wins: revenue +" in shown.stdout, shown.stdout + shown.stderr
        assert "as meant" in shown.stdout
        assert "b wins" in (tmp_path / "ab.html").read_text()
        stopped = hone("ab", "stop", "dense", "--promote")
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
        answers = {running.client.post("/predict", json=BODY).json()["model"] for _ in range(20)}
        assert answers == {"dense:b"}
    assert registered("dense").aliases["champion"].version == "b"
    assert "all requests: b wins" in hone("ab", "history", "dense").stdout


def asked(client: httpx.Client, caller: int, suffix: str = "") -> str:
    """Ask as a caller; return the arm that answered."""
    headers = {"x-user": f"user-{caller}", "x-request-id": f"r{caller}{suffix}"}
    answer = client.post("/predict", json=BODY, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-hone-arm"]


def post(client: httpx.Client, arms: dict[int, str]) -> None:
    """Say what answers were worth: two of three callers bought, those of the variant for more."""
    entries = [
        {"request_id": f"r{caller}", "figures": {"revenue": 10.0 + caller % 7 + 9.0 * (arm == "b")}}
        for caller, arm in arms.items()
        if caller % 3
    ]
    assert client.post("/models/dense/feedback", json=entries).json() == {"accepted": len(entries)}


def kill(running: Server) -> None:
    """End a server and its workers as the kernel does when memory is short."""
    pids = [*running.workers(), running.process.pid]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    running.process.wait()


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.5)
