"""Real servers for tests: a store with small models, and `bentoml serve` on a free port."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from hone import store
from hone.services.launch import end, free_port
from tests.models.dense import dense_artifact

ROOT = Path(__file__).parents[1]
WORKERS = {"hone.services.worker", "_bentoml_impl.worker.service"}
"""What a worker is started as, by the arbiter of Hone and by `bentoml serve`."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    client: httpx.Client
    process: subprocess.Popen[str]
    log: Path
    port: int

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        import psutil

        found: list[int] = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if WORKERS.intersection(child.cmdline()):
                    found.append(child.pid)
        return found


@contextmanager
def server(
    arguments: list[str], home: Path, cwd: Path = ROOT, scheme: str = "http", port: int = 0, **environment: str
) -> Iterator[Server]:
    """Run a command that serves on the port given to it as {port}, a free one by default; yield it when it is ready."""
    port = port or free_port()
    command = [argument.format(port=port) for argument in arguments]
    log = home / f"serve-{port}.log"
    variables = {**os.environ, "BENTOML_HOME": str(home), **environment}
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=cwd, env=variables, stdout=stream, stderr=stream, text=True)
    try:
        with caller(f"{scheme}://127.0.0.1:{port}") as client:
            wait_ready(client, process, log)
            yield Server(client, process, log, port)
    finally:
        end(process)


def caller(url: str | httpx.URL = "", timeout: float = 30, **options: Any) -> httpx.Client:
    """Return a client over HTTP with connections of its own. It reads no certificates of authorities: that takes more
    time than all that most tests ask."""
    return httpx.Client(base_url=url, timeout=timeout, verify=False, **options)


def wait_ready(
    client: httpx.Client, process: subprocess.Popen[Any], log: Path, timeout_s: float = 90, path: str = "/readyz"
) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            if client.get(path).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def put(home: Path, artifact: Path, name: str, version: str, **options: object) -> store.Entry:
    """Store a dense model."""
    use_store(home)
    return store.put(dense_artifact(artifact, name=name, **options), name, version)  # type: ignore[arg-type]


def use_store(home: Path) -> None:
    """Let this process read and write the store of a BentoML home."""
    (home / "models").mkdir(parents=True, exist_ok=True)
    BentoMLContainer.model_store.set(ModelStore(home / "models"))


@contextmanager
def redis(port: int, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a real Redis that keeps nothing on disk."""
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield process
    finally:
        process.kill()
        process.wait()


HONE = str(Path(sys.executable).parent / "hone")
BENTOML = [sys.executable, "-m", "bentoml", "serve", "services.digits:Digits", "--port", "{port}"]
"""`bentoml serve`, as it is typed."""

DIGITS = [sys.executable, "-m", "hone.services.arbiter", "serve", "services.digits:Digits", "--port", "{port}"]
"""The same service, started as `hone serve` starts one: in two thirds of the time."""


def self_signed(folder: Path, days: tuple[int, int] = (-1, 1), number: int = 1) -> tuple[Path, Path]:
    """Write a certificate for localhost and its key; return both files.

    Args:
        days: from today on, between which it is valid.
        number: its serial number.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(built.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
