"""An S3 server for tests."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hone.services.launch import free_port


def until_it_listens(port: int) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError(f"nothing listens on port {port}")


@contextmanager
def s3_bucket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run an S3 server with one bucket; it has an environment of its own, for its forty packages fight with others."""
    python, port = folder / "moto" / "bin" / "python", free_port()
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, folder / "moto"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "moto[server]==5.2.5"], check=True)
    server = subprocess.Popen([python, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])
    address = f"http://127.0.0.1:{port}"
    told = {
        "ENDPOINT_URL": address,
        "ACCESS_KEY_ID": "key",
        "SECRET_ACCESS_KEY": "secret",
        "DEFAULT_REGION": "eu-west-1",
    }
    for name, value in told.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", address)
    try:
        until_it_listens(port)
        import boto3

        boto3.client("s3").create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield "s3://models/hone"
    finally:
        server.terminate()
        server.wait()
