"""The table of probes, against real servers: one worker that anybody may call, and two workers with keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.services.access.api_keys import add_key
from tests.probes import PROBES, SETTINGS, Probe, probed
from tests.servers import DIGITS, Server, put, server


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("shop")
    put(home, tmp_path_factory.mktemp("artifacts") / "a", "digits", "onnx-fp32-1", run="1")
    return home


@pytest.fixture(scope="module")
def alone(shop: Path) -> Iterator[Server]:
    with server(DIGITS, shop, **SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(shop: Path) -> Iterator[tuple[Server, str]]:
    """Two workers with keys, and a key with every scope."""
    key = add_key(shop / "keys.yaml", "all", ("predict", "admin"))
    with server(DIGITS, shop, HONE_WORKERS="2", HONE_API_KEYS=str(shop / "keys.yaml"), **SETTINGS) as running:
        yield running, key


def check(probe: Probe, running: Server, key: str) -> None:
    workers = running.workers()
    found = probed(probe, running, key)
    assert found.status == probe.status, found
    assert found.seconds < probe.within_s
    assert found.grown_mb < probe.grows_mb
    assert len(found.body) < 2000
    answer = running.client.post("/predict", json={"inputs": {"features": [[1, 2, 3, 4]]}}, headers={"x-api-key": key})
    assert answer.status_code == 200, "the model is gone"
    assert running.workers() == workers


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_probe(alone: Server, probe: Probe) -> None:
    check(probe, alone, "none")


@pytest.mark.parametrize("probe", [probe for probe in PROBES if probe.workers_too], ids=lambda probe: probe.name)
def test_probe_with_keys_and_two_workers(guarded: tuple[Server, str], probe: Probe) -> None:
    check(probe, *guarded)


def test_no_probe_makes_a_traceback_a_new_line_or_a_series(alone: Server) -> None:
    """Last, so that it reads what the others left."""
    log = alone.log.read_text()
    assert "Traceback" not in log
    assert not [line for line in log.splitlines() if not line.startswith(("20", "passed over"))], log
    assert max(map(len, log.splitlines())) < 1200
    endpoints = {
        label.partition('"')[0]
        for line in alone.client.get("/metrics").text.splitlines()
        for label in line.split('endpoint="')[1:]
    }
    assert endpoints <= {"/readyz", "/livez", "/predict"}
