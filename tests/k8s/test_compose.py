"""The Compose file: what it promises, and its nginx in front of real services."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml

from hone.lifecycle.replicas.balancer import Balancer, configuration
from hone.lifecycle.replicas.state import Replica
from hone.services.launch import free_port
from hone.services.routes.paths import PATHS
from hone.services.settings import Settings
from tests.models.dense import dense_answer
from tests.servers import ROOT, put, server, wait_ready

COMPOSE = ROOT / "k8s" / "compose"
SERVICES: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
needs_nginx = pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed: apt install nginx")


@pytest.mark.parametrize("name", SERVICES)
def test_containers_are_bounded_and_may_do_little(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    assert all("size=" in folder for folder in service["tmpfs"])
    if name != "model":  # its image says who it runs as
        assert re.fullmatch(r"docker\.io/library/\w+:\d+\.\d+\.\d+-bookworm", service["image"])
        assert not service["user"].startswith("0")


def test_settings_are_those_of_the_service() -> None:
    settings = Settings.from_environment(SERVICES["model"]["environment"])
    known = {f"HONE_{name.upper()}" for name in Settings.__dataclass_fields__}
    assert set(SERVICES["model"]["environment"]) <= known
    grace = int(SERVICES["model"]["stop_grace_period"].removesuffix("s"))
    assert settings.drain_s + settings.stop_s + 5 <= grace


def test_docker_compose_takes_it() -> None:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed: apt install docker-compose")
    command = [program, "-f", str(COMPOSE / "compose.yaml"), "config"]
    variables = {**os.environ, "MODEL_IMAGE": "registry.example.com/hone/digits:1"}
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr
    variables.pop("MODEL_IMAGE")
    refused = subprocess.run(command, capture_output=True, text=True, env=variables)
    assert refused.returncode != 0 and "an image that hone containerize made" in refused.stderr


def test_nginx_passes_public_paths_and_no_others() -> None:
    text = (COMPOSE / "nginx.conf").read_text()
    exact = re.findall(r"location = (\S+) \{ proxy_pass", text)
    prefixes = re.findall(r"location (/\S+) \{ proxy_pass", text)
    passed = [path.of("digits", "1") in exact or path.of("digits", "1").startswith(tuple(prefixes)) for path in PATHS]
    assert passed == [path.outside for path in PATHS]


@contextmanager
def nginx(folder: Path, http: list[int], grpc: int) -> Iterator[httpx.Client]:
    """Run the file's nginx in front of services on this host, as `hone up` does; no name server is there."""
    port = free_port()
    replicas = [Replica(id=f"r{at}", version="a", port=each, grpc_port=grpc) for at, each in enumerate(http)]
    text = configuration(folder, "127.0.0.1", port, free_port(), {"a": (100.0, replicas)})
    balancer, log = Balancer(folder), folder / "nginx.log"
    balancer.apply(text)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            assert balancer.process is not None
            wait_ready(client, balancer.process, log, path="/v2/health/ready")
            yield client
    finally:
        balancer.stop()


@needs_nginx
@pytest.mark.slow
def test_a_replica_that_is_gone_fails_no_caller(tmp_path: Path) -> None:
    put(tmp_path, tmp_path / "artifact", "dense", "a")
    command = [str(Path(sys.executable).with_name("hone")), "serve", "dense", "--port", "{port}"]
    rows = np.array([[0.1, 0.2, 0.3, 0.4]])
    with ExitStack() as stack:
        both = [stack.enter_context(server(command, tmp_path)) for _ in range(2)]
        client = stack.enter_context(nginx(tmp_path, [each.port for each in both], free_port()))

        def ask() -> int:
            answer = client.post("/predict", json={"inputs": {"features": rows.tolist()}})
            if answer.status_code == 200:
                assert answer.json()["outputs"]["scores"][0] == pytest.approx(dense_answer(rows)[0], rel=1e-4)
            return answer.status_code

        assert [ask() for _ in range(20)] == [200] * 20
        assert {client.get(path).status_code for path in ("/metrics", "/readyz", "/v2/repository/index")} == {404}
        assert client.post("/predict", content=b"0" * (17 << 20)).status_code == 413
        both[0].process.terminate()
        both[0].process.wait()
        assert [ask() for _ in range(20)] == [200] * 20
