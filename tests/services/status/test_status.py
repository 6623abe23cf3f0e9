"""`hone status` of real services: each thing that it looks at is seen in order, and not."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone import store
from hone.k8s.tools.serving_code import serving_code
from hone.services.status.figures import figures_of
from tests.capacities import capacity
from tests.models.dense import dense_artifact
from tests.servers import HONE, ROOT, Server, self_signed, server, use_store

ROW = {"inputs": {"features": [[0.1, -2, 3, 4]]}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("status")
    use_store(folder / "home")
    store.put(dense_artifact(folder / "dense", name="dense"), "dense", "first")
    return folder / "home"


@pytest.fixture(scope="module")
def running(home: Path) -> Iterator[Server]:
    with server([HONE, "serve", "dense", "--port", "{port}"], home) as found:
        for _ in range(200):
            assert found.client.post("/predict", json=ROW).status_code == 200
        yield found


def status(*arguments: object) -> tuple[int, dict[str, Any]]:
    """Return the exit status, and the state of each finding by its name with what was found."""
    command = [HONE, "status", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr
    report = json.loads(done.stdout)
    assert (report["verdict"] == "failed") == (done.returncode == 3)
    return done.returncode, {found["name"]: (found["state"], found["detail"]) for found in report["findings"]}


def image_record(folder: Path, tag: str, digest: str) -> Path:
    file = folder / "image.json"
    file.write_text(json.dumps({"kind": "image", "serves": tag, "models": [{"tag": tag, "digest": digest}]}))
    return file


def test_service_in_order(running: Server, tmp_path: Path) -> None:
    digest = running.client.get("/v2/models/dense").json()["parameters"]["digest"]
    (tmp_path / "capacity.json").write_text(capacity().model_dump_json())
    (tmp_path / "hone-20260101T000000Z.tar.gz").touch()
    code, found = status(
        running.client.base_url, "--p99", 9000, "--capacity", tmp_path / "capacity.json", "--over", 0.5,
        "--image-record", image_record(tmp_path, "dense:first", digest), "--backups", tmp_path, "--disk", tmp_path,
    )  # fmt: skip
    assert {name: state for name, (state, _) in found.items() if name != "disk"} == dict.fromkeys(
        ("ready", "content", "errors", "p99", "load", "backup"), "ok"
    )
    assert code == (0 if found["disk"][0] == "ok" else 3)  # of this machine
    assert found["errors"][1].startswith("0.00% of 2")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("--p99", 0.0001), "p99"),
        (("--backups", "."), "backup"),
        (("--image-record", "image.json"), "content"),
    ],
)
def test_what_is_not_in_order_is_the_exit_status(
    running: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    image_record(tmp_path, "dense:first", "0" * 64)
    code, found = status(running.client.base_url, *arguments)
    assert (code, [key for key, (state, _) in found.items() if state != "ok"]) == (3, [name])


def test_refusals_are_errors_and_a_busy_service_is_said(home: Path, tmp_path: Path) -> None:
    small = capacity().model_copy(update={"rate": 0.001, "rate_lower_95": None})
    (tmp_path / "capacity.json").write_text(small.model_dump_json())
    with server([HONE, "serve", "dense", "--port", "{port}"], home) as running:
        command = [HONE, "status", str(running.client.base_url), "--capacity", str(tmp_path / "capacity.json")]
        asking = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, text=True)
        while asking.poll() is None:
            for timeout in ("10000", "0"):
                running.client.post("/predict", json=ROW, headers={"x-timeout-ms": timeout})
        found = {one["name"]: one["state"] for one in json.loads(asking.communicate()[0])["findings"]}
    assert asking.returncode == 3
    assert (found["errors"], found["load"]) == ("failed", "failed")


def test_keys_certificates_and_what_needs_a_key(home: Path, tmp_path: Path) -> None:
    certificate, private = self_signed(tmp_path)  # for a day
    made = subprocess.run(
        [HONE, "keys", "new", "a", "--file", "keys.yaml"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    record = image_record(tmp_path, "dense:first", "0" * 64)
    arguments = [HONE, "serve", "dense", "--port", "{port}", "--api-keys", str(tmp_path / "keys.yaml")]
    arguments += ["--ssl-certfile", str(certificate), "--ssl-keyfile", str(private)]
    with server(arguments, home, scheme="https") as running:
        url = f"https://localhost:{running.port}"
        code, found = status(url, "--ca", certificate, "--image-record", record)
        assert (code, found["certificate"][0], found["content"][0]) == (3, "failed", "unknown")
        key = made.stdout.strip()
        _, found = status(
            url, "--ca", certificate, "--certificate-days", 0.5, "--image-record", record, "--api-key", key
        )
        assert (found["certificate"][0], found["content"][0], "keys" in found) == ("ok", "failed", False)
        (tmp_path / "keys.yaml").write_text("no keys")
        running.client.post("/predict", json=ROW, headers={"x-api-key": key})
        for _ in range(60):
            _, found = status(url, "--ca", certificate)
            if "keys" in found:
                break
        assert found["keys"][0] == "failed"
        code, found = status(url)  # nobody vouches for the certificate
        assert (code, found["ready"][0]) == (3, "failed")


def test_silent_service_is_one_finding_and_no_address_an_error() -> None:
    code, found = status("http://127.0.0.1:9")
    assert (code, list(found)) == (3, ["ready"])
    done = subprocess.run([HONE, "status", "localhost"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no address of a service" in done.stderr


def test_every_address_of_a_name_is_asked_by_the_module_alone(running: Server) -> None:
    """As the CronJob does in an image without a command line."""
    command = [sys.executable, "-m", "hone.services.status", f"http://localhost:{running.port}", "--each"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 3), done.stderr  # localhost may have an address that nobody listens on
    assert f"ok       ready: http://127.0.0.1:{running.port} is ready" in done.stdout
    assert "all that was checked is in order" in done.stdout or "not in order" in done.stdout


def test_code_in_an_image_can_check(tmp_path: Path) -> None:
    """It has what serves, and no more."""
    for place, file in serving_code().items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, tmp_path / place)
    checks = yaml.safe_load_all((ROOT / "k8s" / "components" / "checks" / "cronjob.yaml").read_text())
    (arguments,) = [
        container["args"]
        for item in checks
        if item["kind"] == "CronJob"
        for container in item["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    ]
    command = [sys.executable, *("http://127.0.0.1:9" if "hone-pods" in part else part for part in arguments[1:])]
    done = subprocess.run(command, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["findings"][0]["name"] == "ready"


METRICS = """# HELP hone_request_seconds From head to answer.
hone_request_seconds_bucket{le="0.1",model="a",version="1"} 50.0
hone_request_seconds_bucket{le="0.2",model="a",version="1"} 100.0
hone_request_seconds_bucket{le="+Inf",model="a",version="1"} 100.0
hone_request_seconds_bucket{le="0.1",model="b",version="1"} 0.0
hone_request_seconds_bucket{le="0.2",model="b",version="1"} 100.0
hone_request_seconds_bucket{le="+Inf",model="b",version="1"} 100.0
hone_requests_total{model="a",protocol="predict",status="200",version="1"} 97.0
hone_requests_total{model="a",protocol="predict",status="503",version="1"} 3.0
hone_requests_total{model="b",protocol="v2",status="400",version="1"} 100.0
hone_key_file_stale 0.0
"""


def test_figures_are_sums_over_models() -> None:
    figures = figures_of(METRICS)
    assert (figures.requests, figures.errors, figures.stale_keys) == (200.0, 3.0, False)
    assert figures.quantile(0.25) == pytest.approx(0.1)
    assert figures.quantile(0.625) == pytest.approx(0.15)
    beyond = METRICS.replace('{le="0.2",model="b",version="1"} 100.0', '{le="0.2",model="b",version="1"} 0.0')
    assert figures_of(beyond).quantile(0.99) == math.inf
    assert figures.since(figures).quantile(0.5) is None
    assert figures_of("").error_share == 0.0
