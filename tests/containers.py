"""Containers without a Docker engine: buildah, a registry, a package mirror, and running an image as it says."""

from __future__ import annotations

import contextlib
import json
import os
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from hone.services.launch import free_port
from tests.servers import ROOT, self_signed


@contextlib.contextmanager
def registry(folder: Path, keep: bool = False) -> Iterator[str]:
    """Run a registry (Debian's docker-registry), which keeps images in memory, or in a folder; give its address."""
    address = f"127.0.0.1:{free_port()}"
    storage = {"filesystem": {"rootdirectory": str(folder / "registry")}} if keep else {"inmemory": {}}
    settings = {"version": 0.1, "storage": storage, "http": {"addr": address}}
    (folder / "registry.yml").write_text(yaml.safe_dump(settings))
    with (folder / "registry.log").open("w") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(folder / "registry.yml")], stdout=log, stderr=log)
    try:
        wait_answer(f"http://{address}/v2/")
        yield address
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def running_registry(engine: dict[str, str], folder: Path) -> Iterator[str]:
    """Run a registry that the engine is told to reach without TLS; give its address."""
    with registry(folder, keep=True) as address:
        listing = f'[[registry]]\nlocation = "{address}"\ninsecure = true\n'
        Path(engine["CONTAINERS_REGISTRIES_CONF"]).write_text(listing)
        yield address


@contextlib.contextmanager
def mirror(wheels: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Serve wheels as a private package index with a certificate of its own (PEP 503); give its URL and certificate."""
    links: dict[str, list[str]] = {}
    for wheel in wheels.glob("*.whl"):
        links.setdefault(re.sub(r"[-_.]+", "-", wheel.name.split("-")[0]).lower(), []).append(wheel.name)

    class Index(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.strip("/").split("/")
            if parts[0] != "simple":
                super().do_GET()
                return
            body = "".join(f'<a href="/{name}">{name}</a>\n' for name in links.get(parts[-1], [])).encode()
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    folder.mkdir()
    certificate, key = self_signed(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, directory=str(wheels)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"https://localhost:{server.server_port}/simple", certificate
    finally:
        server.shutdown()
        server.server_close()


def call(command: list[str], environment: dict[str, str], cwd: Path = ROOT) -> str:
    done = subprocess.run(command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def container(
    engine: dict[str, str], tag: str, log: Path, volumes: dict[Path, str], **variables: str
) -> Iterator[tuple[str, Path, int]]:
    """Run an image as its configuration says (buildah runs commands only, so they are read from it).

    Args:
        log: gets what it prints.
        volumes: folder of this machine -> its place in the container, with `:ro` where it is only read.
        variables: of its environment.

    Yields its URL, its root folder and the process id of its process 1.
    """
    name = call(["buildah", "from", tag], engine).strip()
    try:
        root = Path(call(["buildah", "mount", name], engine).strip())
        config = json.loads(call(["buildah", "inspect", "--type", "image", tag], engine))["Docker"]["config"]
        port = free_port()
        command = [part if part != "3000" else str(port) for part in (*config["Entrypoint"], *config["Cmd"])]
        environment = [part for key, value in variables.items() for part in ("--env", f"{key}={value}")]
        mounts = [part for folder, place in volumes.items() for part in ("--volume", f"{folder}:{place}")]
        with log.open("w") as stream:
            process = subprocess.Popen(
                ["buildah", "run", *environment, *mounts, name, "--", *command],
                env=engine,
                stdout=stream,
                stderr=stream,
            )
        try:
            yield f"http://127.0.0.1:{port}", root, first_process(process)
        finally:
            for child in psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []:
                with contextlib.suppress(psutil.Error):
                    child.kill()
            process.kill()
            process.wait()
    finally:
        call(["buildah", "rm", name], engine)


def first_process(process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if child.cmdline()[:1] and Path(child.cmdline()[0]).name == "dumb-init":
                    return child.pid
        time.sleep(0.1)
    raise AssertionError("the container's process 1 did not start")


def wait_answer(url: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError(f"{url} does not answer")


def layers(engine: dict[str, str], tag: str) -> list[str]:
    config = json.loads(call(["buildah", "inspect", "--type", "image", tag], engine))["Docker"]
    return list(config["rootfs"]["diff_ids"])


def run_inside(engine: dict[str, str], tag: str, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a container of the image, until it ends."""
    name = call(["buildah", "from", tag], engine).strip()
    environment = [part for key, value in variables.items() for part in ("--env", f"{key}={value}")]
    try:
        return subprocess.run(
            ["buildah", "run", *environment, name, "--", *command],
            env=engine, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
    finally:
        call(["buildah", "rm", name], engine)


def files(root: Path) -> dict[str, tuple[float, int]]:
    """Return what lies outside the volumes, with times and sizes."""
    found = {}
    for folder, names, members in os.walk(root):
        place = Path(folder).relative_to(root).as_posix()
        names[:] = [
            name for name in names if f"{place}/{name}".removeprefix("./") not in ("run", "tmp", "proc", "sys", "dev")
        ]
        for member in members:
            facts = (Path(folder) / member).lstat()
            # The engine itself writes these when it starts a container.
            if f"{place}/{member}" not in ("etc/hosts", "etc/resolv.conf", "etc/hostname"):
                found[f"{place}/{member}"] = (facts.st_mtime, facts.st_size)
    return found
