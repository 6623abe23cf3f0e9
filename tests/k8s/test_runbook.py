"""Every command of the runbook is run: kubectl's by a real API server, the others on a real service and its log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
import pytest

from hone.cli.main import cli
from hone.k8s.planning.prometheus import AUTH_VARIABLE
from hone.services.access.api_keys import add_key
from hone.services.protocols import all_endpoints
from hone.services.routes.paths import PATHS
from hone.services.settings import ELSEWHERE, Settings
from tests.cluster import ControlPlane, Nodes, for_server
from tests.servers import HONE, ROOT, Server, put, server

K8S = ROOT / "k8s"
RUNBOOK = (K8S / "monitoring" / "runbook.md").read_text()
LOGS = r"kubectl -n NS logs [^|>`]*"
"""What prints the pods' logs; without a kubelet a file stands in its place."""

NEEDS_KUBELET = ("logs", "port-forward", "cp", "top")
"""They reach the API server, which can't reach a kubelet or a metrics server here."""

NO_KUBELET = re.compile("no preferred addresses found|Metrics API not available")


def commands(*programs: str) -> list[str]:
    """Return the command lines of the page, in its order: in blocks, and in the text."""
    found = []
    for block, inline in re.findall(r"```bash\n(.*?)```|`([^`\n]+)`", RUNBOOK, re.DOTALL):
        lines = [line.strip() for line in block.splitlines()] if block else [inline]
        found += [line for line in lines if line.partition(" ")[0] in programs]
    return found


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A service as pods run it, with two versions at hand, one of them compared as a shadow; and an operator's key."""
    home = tmp_path_factory.mktemp("home")
    put(home, home / "a", "digits", "onnx-fp32-1", run="20260101-000000-0000")
    put(home, home / "b", "digits", "onnx-fp32-2", run="20260102-000000-0000")
    key = add_key(home / "keys.yaml", "operator", ("predict", "admin"), None)
    environment = {
        "HONE_API_KEYS": str(home / "keys.yaml"),
        "HONE_LOG_FORMAT": "json",
        "HONE_ACCESS_LOG": "errors",
        "HONE_AUDIT_LOG": "-",
        "HONE_SHADOW": "digits:onnx-fp32-1",
        "HONE_RECORD_DIR": str(home / "recorded"),
    }
    command = [HONE, "serve", "digits:onnx-fp32-2", "--port", "{port}"]
    with server(command, home, **environment) as running:
        running.client.headers["x-api-key"] = key
        yield running, key


def shell(line: str, running: Server, key: str, folder: Path) -> str:
    """Run a line of the page with what stands in it for names; return what it prints.

    A service writes the line of a request after its answer: a command that finds nothing in the log is run again.
    """
    line = re.sub(LOGS, "cat pods.log ", line.partition("   #")[0])
    names = {
        "localhost:3000": f"127.0.0.1:{running.port}",
        "https://models.example.com": f"http://127.0.0.1:{running.port}",
        "REQUEST_ID": "the-late-one",
        "NAME": "digits",
        "VERSION": "onnx-fp32-1",
        "KEY": key,
    }
    for word, value in names.items():
        line = line.replace(word, value)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    given_up = time.monotonic() + 30
    while True:
        (folder / "pods.log").write_text(running.log.read_text())
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode == 0:
            return done.stdout
        assert time.monotonic() < given_up, f"{line}\n{done.stdout}\n{done.stderr}"
        time.sleep(0.1)


def line_with(part: str) -> str:
    (found,) = [line for line in commands("kubectl", "curl", "grep", "hone", "python") if part in line]
    return found


def fail_one(client: httpx.Client) -> None:
    """Send a request whose deadline can't be met."""
    late = {"x-timeout-ms": "0.001", "x-request-id": "the-late-one"}
    answer = client.post("/predict", json={"inputs": {"features": [[1, 2, 3, 4]]}}, headers=late)
    assert answer.status_code == 503


def test_failed_requests_are_found_in_the_log(live: tuple[Server, str], tmp_path: Path) -> None:
    running, key = live
    fail_one(running.client)
    found = shell(line_with("""grep '"status":5'"""), running, key, tmp_path).splitlines()
    assert '"request_id":"the-late-one"' in found[-1]
    for field in ('"model":"digits:onnx-fp32-2"', '"status":503', '"problem":"'):
        assert field in found[-1]
    assert "the-late-one" in shell(line_with("grep REQUEST_ID"), running, key, tmp_path)


def test_going_back_and_comparing_work_on_a_live_service(live: tuple[Server, str], tmp_path: Path) -> None:
    running, key = live
    assert "onnx-fp32-1" in shell(line_with("/load"), running, key, tmp_path)
    assert running.client.post("/predict", json={"inputs": {"features": [[1, 2, 3, 4]]}}).json()["model"].endswith("-1")
    assert '"versions":["onnx-fp32-1"]' in shell(line_with("localhost:3000/v2/models/NAME "), running, key, tmp_path)
    running.client.post("/v2/repository/models/digits/load", json={"parameters": {"version": "onnx-fp32-2"}})
    running.client.post("/predict", json={"inputs": {"features": [[1, 2, 3, 4]]}})
    assert "hone_shadow_rows_total" in shell(line_with("hone_shadow'"), running, key, tmp_path)
    assert '"name":"digits"' in shell(line_with("models.example.com"), running, key, tmp_path)


def test_split_is_shown_and_ended(live: tuple[Server, str], tmp_path: Path) -> None:
    assert '"split":null' in shell(line_with("split -H"), *live, tmp_path)
    assert '"split":null' in shell(line_with("-X DELETE"), *live, tmp_path)


def test_log_shows_who_changed_what(live: tuple[Server, str], tmp_path: Path) -> None:
    running, key = live
    running.client.post("/v2/repository/models/digits/load", json={"parameters": {"version": "onnx-fp32-2"}})
    shell(line_with("> pod.log"), running, key, tmp_path)
    assert "the chain holds" in shell(line_with("audit verify"), running, key, tmp_path)
    assert '"subject":"digits:onnx-fp32-2"' in shell(line_with("grep '\"actor\":'"), running, key, tmp_path)


def test_log_says_how_answers_compare_with_the_proofs(live: tuple[Server, str], tmp_path: Path) -> None:
    assert "has no golden rows" in shell(line_with("grep 'golden rows'"), *live, tmp_path)


def test_recorded_traffic_is_read_as_written(live: tuple[Server, str], tmp_path: Path) -> None:
    from hone.services.observe.recording import Recorder

    recorder = Recorder(tmp_path / "recorded")
    rows = {"features": np.ones((2, 4), np.float32)}
    recorder.offer("digits", "onnx-fp32-1", "r", rows, rows, 0.001)
    recorder.close()
    assert "input.features" in shell(line_with("from hone.services.observe.recording import read"), *live, tmp_path)


def test_every_path_of_the_table_is_answered(live: tuple[Server, str]) -> None:
    """Ingress and Gateway are checked against the table, so the table must be what the service does."""
    client = live[0].client
    of_encoders = {path for endpoint in all_endpoints() if endpoint.first_of_kind for path in endpoint.templates}
    for path in sorted(PATHS, key=lambda path: path.template.endswith("/unload")):
        if path.template in of_encoders:  # this model is none
            continue
        answer = client.request(path.method, path.of("digits", "onnx-fp32-2"), content=b"{}")
        assert answer.status_code not in (404, 405), (path, answer.text)


def test_page_names_commands_and_settings_that_exist() -> None:
    pages = RUNBOOK + (K8S / "README.md").read_text()
    for line in re.findall(r"`hone ([a-z0-9 ]+)", pages):
        group: Any = cli
        for word in line.split():
            command = group.get_command(click.Context(group), word) if isinstance(group, click.Group) else None
            if command is None:
                break
            group = command
        assert group is not cli, f"hone {line}"
    known = {f"HONE_{field.name.upper()}" for field in fields(Settings)} | {*ELSEWHERE, AUTH_VARIABLE}
    of_tests = {"HONE_TEST_CONTROL_PLANE", "HONE_TEST_CRDS"}
    assert set(re.findall(r"\bHONE_[A-Z_]+\b", pages)) - of_tests <= known


@pytest.mark.slow
def test_kubectl_lines_work_on_a_real_api_server(control_plane: ControlPlane, tmp_path: Path) -> None:
    from hone.k8s.tools.cluster import manifests

    namespace = "runbook"
    objects = for_server(manifests(K8S / "overlays" / "cpu"), namespace)
    for item in objects:
        if item["kind"] == "Deployment":
            item["spec"]["minReadySeconds"] = 0
    lines = commands("kubectl")
    assert len(lines) > 15
    with Nodes(control_plane, namespace, "server") as nodes:
        nodes.add("runbook-1")
        control_plane.apply(objects)
        rolled_out = ("-n", namespace, "rollout", "status", "deployment/hone", "--timeout=60s")
        control_plane.kubectl(*rolled_out)
        # A second revision, to go back from.
        control_plane.kubectl("-n", namespace, "set", "env", "deployment/hone", "HONE_QUEUE_ROWS=1000")
        for line in lines:
            control_plane.kubectl(*rolled_out)
            run_kubectl(control_plane, namespace, line, tmp_path)


def run_kubectl(cluster: ControlPlane, namespace: str, line: str, folder: Path) -> None:
    selector = ("-l", "app.kubernetes.io/component=server", "--field-selector=status.phase=Running")
    pods = [pod["metadata"] for pod in cluster.get("-n", namespace, "pods", *selector)["items"]]
    pod = next(pod["name"] for pod in pods if "deletionTimestamp" not in pod)
    words = re.split(r"\s+[|>#]", line.removeprefix("kubectl "))[0].split()
    names = {"NS": namespace, "POD": pod, "MONITORING": "default", "HONE_MODEL=NAME:VERSION": "HONE_MODEL=digits:1"}
    arguments = [names.get(word, word.replace("POD:", f"{pod}:").replace("NAME:VERSION", "digits:1")) for word in words]
    done = cluster.kubectl(*arguments, check=False)
    verb = arguments[2] if arguments[0] == "-n" else arguments[0]
    if verb in NEEDS_KUBELET:
        assert done.returncode, line
        assert NO_KUBELET.search(done.stderr), f"{line}\n{done.stderr}"
        return
    assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert "No resources found" not in done.stderr, line
