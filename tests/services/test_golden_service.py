"""A server on a host where a model answers otherwise than in its proof: alive, not ready, and it says why."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import httpx

from hone import store
from hone.services.launch import end, free_port
from tests import goldens
from tests.corruptions import swap_outputs
from tests.servers import HONE, ROOT, server, use_store


def test_server_answers_503_for_a_model_that_answers_otherwise(tmp_path: Path) -> None:
    golden = goldens.taken(goldens.sealed(tmp_path / "sound", goldens.network()), goldens.rows(), tmp_path / "scratch")
    use_store(tmp_path / "home")
    model = goldens.network()
    swap_outputs(model)
    for version, graph in (("sound", goldens.network()), ("wrong", model)):
        plain = goldens.sealed(tmp_path / f"{version}-plain", graph)
        store.put(goldens.with_golden(tmp_path / version / "made", plain, golden), "small", version)
    home = tmp_path / "home"
    rows = {name: array[:1].tolist() for name, array in goldens.rows(1).items()}
    with server([HONE, "serve", "small:sound", "--port", "{port}"], home, HONE_GOLDEN_CHECK_S="0.2") as running:
        assert running.client.post("/predict", json={"inputs": rows}).status_code == 200
        wait_for(running.client, "/metrics", 'result="match",version="sound"} 2.0')
    _refused(home, rows)


def _refused(home: Path, rows: dict[str, object]) -> None:
    port = free_port()
    log = home / "wrong.log"
    command = [HONE, "serve", "small:wrong", "--port", str(port)]
    with log.open("w") as stream:
        environment = {**os.environ, "BENTOML_HOME": str(home)}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=stream, stderr=stream)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_for(client, "/metrics", 'hone_golden_mismatch{model="small",version="wrong"} 1.0')
            assert client.get("/livez").status_code == 200
            assert client.get("/readyz").status_code == 503
            assert client.get("/v2/health/ready").status_code == 503
            for path in ("/predict", "/v2/models/small/infer"):
                answer = client.post(path, json={"inputs": rows})
                assert answer.status_code == 503 and "other answers on this host than in its proof" in answer.text
            assert client.get("/v2/models/small").status_code == 503
    finally:
        end(process)
    assert "small is not served: small:wrong gives other answers than its proof's to" in log.read_text()
    assert "Traceback" not in log.read_text()


def wait_for(client: httpx.Client, path: str, text: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    seen = ""
    while time.monotonic() < deadline:
        try:
            seen = client.get(path).text
        except httpx.TransportError:
            seen = ""
        if text in seen:
            return
        time.sleep(0.2)
    raise AssertionError(seen)
