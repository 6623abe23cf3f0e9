"""A real Prometheus for tests, with a history that is written before it starts; Debian's package `prometheus`."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from hone.services.launch import free_port

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None, reason="prometheus is not installed"
)


@contextmanager
def prometheus(folder: Path, history: str, web: str = "", **client: Any) -> Iterator[str]:
    """Run a Prometheus that scrapes nothing; yield its address.

    Args:
        folder: for its files.
        history: as OpenMetrics text, with times.
        web: its web configuration; empty: everybody may ask, over HTTP.
        client: for httpx, which looks whether it is ready.
    """
    (folder / "history.txt").write_text(history)
    (folder / "prometheus.yml").write_text("global: {}\n")
    data = folder / "data"
    made = ["promtool", "tsdb", "create-blocks-from", "openmetrics", "--max-block-duration=2000h", "-q"]
    subprocess.run([*made, str(folder / "history.txt"), str(data)], check=True, capture_output=True)
    port = free_port()
    command = ["prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={data}"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=10y"]
    if web:
        (folder / "web.yml").write_text(web)
        command.append(f"--web.config.file={folder / 'web.yml'}")
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    url = f"https://localhost:{port}" if "tls_server_config" in web else f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, folder / "prometheus.log", client)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path, client: dict[str, Any]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/-/ready", **client).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"not ready: {log.read_text()}")
