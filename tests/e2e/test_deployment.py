"""From a stored digits artifact to checked manifests, as k8s/README.md has it, on a machine without a Docker engine."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml
from sklearn.datasets import load_digits

from hone import store
from services.launch import free_port
from tests.servers import self_signed

ROOT = Path(__file__).parents[2]
HONE = "from hone.cli import main; main()"
BASE = "localhost/hone-test/base:bookworm"
KEYS = "digits-caller"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(
        not all(map(shutil.which, ("buildah", "mmdebstrap", "kubectl"))) or os.geteuid() != 0,
        reason="needs buildah, mmdebstrap and kubectl, as root",
    ),
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """buildah with a storage of its own, and a base image made of Debian's packages."""
    folder = tmp_path_factory.mktemp("buildah")
    environment = {
        **os.environ,
        "STORAGE_DRIVER": "vfs",
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(folder / "registries.conf"),
    }
    storage = f'[storage]\ndriver = "vfs"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/graph"\n'
    (folder / "storage.conf").write_text(storage)
    include = "--include=python3,python3-venv,ca-certificates"
    call(["mmdebstrap", "--quiet", "--variant=minbase", include, "bookworm", str(folder / "rootfs.tar")], environment)
    (folder / "Containerfile").write_text("FROM scratch\nADD rootfs.tar /\n")
    call(["buildah", "build", "-q", "--tag", BASE, str(folder)], environment)
    (folder / "rootfs.tar").unlink()
    yield environment
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    call([sys.executable, "-c", HONE, "k8s", "wheels", "--out", str(folder)], dict(os.environ))
    return folder


@pytest.fixture
def registry(engine: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """A registry on this machine, which the engine is told to reach without TLS; give its address."""
    if shutil.which("docker-registry") is None:
        pytest.skip("needs docker-registry")
    address = f"127.0.0.1:{free_port()}"
    listing = f'[[registry]]\nlocation = "{address}"\ninsecure = true\n'
    Path(engine["CONTAINERS_REGISTRIES_CONF"]).write_text(listing)
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    (tmp_path / "registry.yml").write_text(
        yaml.safe_dump({"version": 0.1, "storage": storage, "http": {"addr": address}})
    )
    with (tmp_path / "registry.log").open("w") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(tmp_path / "registry.yml")], stdout=log, stderr=log)
    try:
        wait_answer(f"http://{address}/v2/")
        yield address
    finally:
        process.kill()
        process.wait()


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


def hone(environment: dict[str, str], cwd: Path, *arguments: str) -> str:
    here = {name: os.environ[name] for name in ("BENTOML_HOME", "HONE_CACHE")}  # of this test
    return call([sys.executable, "-c", HONE, *arguments], {**environment, **here}, cwd)


@contextlib.contextmanager
def container(engine: dict[str, str], tag: str, folder: Path, **variables: str) -> Iterator[tuple[str, Path, int]]:
    """Run an image as its configuration says (buildah runs commands only, so they are read from it).

    Yields its URL, its root folder and the process id of its process 1.
    """
    name = call(["buildah", "from", tag], engine).strip()
    try:
        root = Path(call(["buildah", "mount", name], engine).strip())
        config = json.loads(call(["buildah", "inspect", "--type", "image", tag], engine))["Docker"]["config"]
        port = free_port()
        command = [part if part != "3000" else str(port) for part in (*config["Entrypoint"], *config["Cmd"])]
        environment = [part for key, value in variables.items() for part in ("--env", f"{key}={value}")]
        volume = ["--volume", f"{folder}:/etc/hone/keys:ro"]
        with (folder.parent / "container.log").open("w") as log:
            process = subprocess.Popen(
                ["buildah", "run", *environment, *volume, name, "--", *command], env=engine, stdout=log, stderr=log
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
        time.sleep(0.2)
    raise AssertionError(f"{url} does not answer")


def layers(engine: dict[str, str], tag: str) -> list[str]:
    config = json.loads(call(["buildah", "inspect", "--type", "image", tag], engine))["Docker"]
    return list(config["rootfs"]["diff_ids"])


def test_from_artifact_to_checked_manifests(
    engine: dict[str, str], wheels: Path, registry: str, tmp_path: Path
) -> None:
    entries = digits(engine, tmp_path)
    tag = f"{registry}/hone/digits:1"
    build = ["containerize", "digits", "--engine", "buildah", "--base", BASE, "--label", "team=digits"]
    build += ["--and", "digits:onnx-fp32"]
    said = hone(engine, tmp_path, *build, "--wheels", str(wheels), "--tag", tag, "--push", "--record", "image.json")
    record = json.loads((tmp_path / "image.json").read_text())
    assert record["above_base_mb"] <= 450
    assert f"pushed: {tag}@{record['digest']}" in said
    manifest = httpx.head(
        f"http://{registry}/v2/hone/digits/manifests/{record['digest']}",
        headers={"accept": "application/vnd.docker.distribution.manifest.v2+json"},
    )
    assert manifest.status_code == 200

    check_image(engine, tag, entries)
    check_imports(engine, tag)
    check_container(engine, tag, tmp_path)
    check_missing_keys(engine, tag, tmp_path)
    # From a private mirror with a certificate of its own: the same packages give the same layers, bit for bit.
    again = "localhost/hone-test/again:1"
    elsewhere = {name: value for name, value in engine.items() if not name.startswith("PIP_")}
    with mirror(wheels, tmp_path / "mirror") as (index, certificate):
        hone(elsewhere, tmp_path, *build, "--index-url", index, "--ca", str(certificate), "--tag", again)
    assert layers(engine, again) == layers(engine, tag)

    measure = ["bench", "capacity", "digits", "--p99", "500ms", "--duration", "2", "--repeats", "1"]
    hone(engine, tmp_path, *measure, "--out", "capacity.json")
    components = ["--component", "in-flight-hpa", "--component", "redis"]
    target = ["--image-record", "image.json", "--out", "deploy", "--capacity", "capacity.json"]
    hone(engine, tmp_path, "k8s", "render", "digits", *target, *components, "--peak", "5000")
    check_manifests(tmp_path, f"{tag}@{record['digest']}")


def digits(environment: dict[str, str], tmp_path: Path) -> list[store.Entry]:
    """Return two stored variants of the digits example, trained and optimized here; the winner first."""
    folder = tmp_path / "digits"
    shutil.copytree(ROOT / "examples" / "digits", folder, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    call([sys.executable, str(folder / "train.py")], environment, tmp_path)
    only = ["--only", "onnx-int8-static", "--only", "onnx-fp32"]
    hone(environment, tmp_path, "optimize", str(folder / "recipe.yaml"), "--out", "out", *only)
    winner = store.resolve("digits")
    return [winner, *(entry for entry in store.entries("digits") if entry.tag != winner.tag)]


def check_image(engine: dict[str, str], tag: str, entries: list[store.Entry]) -> None:
    config = json.loads(call(["buildah", "inspect", "--type", "image", tag], engine))["Docker"]["config"]
    assert config["User"] == "10001:10001"
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert config["StopSignal"] == "SIGTERM"
    labels = config["Labels"]
    tags = [entries[0].tag, store.resolve("digits:onnx-fp32").tag]
    assert labels["dev.hone.models"] == ",".join(dict.fromkeys(tags))
    assert labels["dev.hone.digests"].startswith(f"sha256:{entries[0].opened().digest}")
    assert labels["dev.hone.served"] == "digits"
    assert {"HONE_MODEL=digits", "HONE_MODELS="} <= set(config["Env"])
    assert labels["team"] == "digits"
    assert not [name for name in config["Env"] if "INDEX" in name or "PIP_" in name]


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


def check_imports(engine: dict[str, str], tag: str) -> None:
    """Every feature's package is there and loads, also those that were made smaller."""
    names = ["grpc", "jwt", "cryptography.hazmat.primitives", "opentelemetry.exporter.otlp.proto.http.trace_exporter"]
    names += ["redis.asyncio", "zstandard", "pyarrow.ipc", "pyarrow.parquet", "services.tokens", "services.redis_cache"]
    code = "import sys; sys.path.insert(0, '/opt/hone/bento/src'); import " + ", ".join(names)
    done = run_inside(engine, tag, "python", "-c", code)
    assert done.returncode == 0, done.stderr


def check_missing_keys(engine: dict[str, str], tag: str, tmp_path: Path) -> None:
    """A key file that isn't there ends the container with a line that names it, rather than restarting for ever."""
    config = json.loads(call(["buildah", "inspect", "--type", "image", tag], engine))["Docker"]["config"]
    command = [*config["Entrypoint"], *config["Cmd"][:-1], str(free_port())]
    done = run_inside(engine, tag, *command, HONE_API_KEYS="/etc/hone/keys/none.yaml")
    assert done.returncode != 0
    assert "/etc/hone/keys/none.yaml" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr + done.stdout


def check_container(engine: dict[str, str], tag: str, tmp_path: Path) -> None:
    """The container answers, runs as its user, drains on SIGTERM and writes nothing outside its volumes."""
    keys = tmp_path / "keys"
    keys.mkdir()
    scopes = ["--scope", "predict", "--scope", "admin"]
    secret = hone(engine, tmp_path, "keys", "new", KEYS, *scopes, "--file", str(keys / "keys.yaml")).split()
    os.chmod(keys, 0o755)  # noqa: PTH101 - the container's user is another
    os.chmod(keys / "keys.yaml", 0o644)  # noqa: PTH101
    variables = {"HONE_API_KEYS": "/etc/hone/keys/keys.yaml", "HONE_DRAIN_S": "4", "HONE_RECORD_DIR": "/tmp/recorded"}
    with container(engine, tag, keys, **variables) as (url, root, first):
        wait_answer(f"{url}/readyz")
        before = files(root)
        key = next(word for word in secret if len(word) > 30)
        known = load_digits()
        body = {"inputs": {"image": (known.images[:200, None] / 16).tolist()}}
        assert httpx.post(f"{url}/predict", json=body).status_code == 401
        answer = httpx.post(f"{url}/predict", json=body, headers={"x-api-key": key})
        classes = np.array(answer.json()["outputs"]["logits"]).argmax(axis=1)
        assert (classes == known.target[:200]).mean() > 0.95
        check_arrow(url, key, known.images[:20])
        version = {"parameters": {"version": "onnx-fp32"}}
        loaded = httpx.post(f"{url}/v2/repository/models/digits/load", json=version, headers={"x-api-key": key})
        assert loaded.json()["version"].startswith("onnx-fp32"), loaded.text
        assert httpx.get(f"{url}/livez").status_code == 200
        assert "hone_requests_total" in httpx.get(f"{url}/metrics").text
        family = [psutil.Process(first), *psutil.Process(first).children(recursive=True)]
        assert {process.uids().real for process in family} == {10001}
        assert files(root) == before
        # Not ready at once, serving on for the drain, then gone with everything it started.
        os.kill(first, signal.SIGTERM)
        time.sleep(0.5)
        assert httpx.get(f"{url}/readyz").status_code == 503
        assert httpx.post(f"{url}/predict", json=body, headers={"x-api-key": key}).status_code == 200
        _, alive = psutil.wait_procs(family, timeout=30)
        assert not alive, alive
        assert files(root) == before


def check_arrow(url: str, key: str, images: np.ndarray) -> None:
    """Rows as an Arrow table, packed by zstd."""
    import pyarrow as pa
    import zstandard

    flat = pa.array((images / 16).astype(np.float32).reshape(-1))
    table = pa.table({"image": pa.FixedSizeListArray.from_arrays(flat, 64)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = zstandard.compress(sink.getvalue().to_pybytes())
    media = {"content-type": "application/vnd.apache.arrow.stream", "content-encoding": "zstd"}
    answer = httpx.post(f"{url}/predict", content=body, headers={**media, "x-api-key": key})
    assert answer.status_code == 200, answer.text
    assert pa.ipc.open_stream(answer.content).read_all().num_rows == len(images)


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


def check_manifests(tmp_path: Path, image: str) -> None:
    import kubernetes_validate

    from k8s.preflight import NEWEST, OLDEST, manifests

    capacity = json.loads((tmp_path / "capacity.json").read_text())
    assert capacity["rate"] > 20
    objects = manifests(tmp_path / "deploy")
    for item in objects:
        for major, minor in (OLDEST, NEWEST):
            kubernetes_validate.validate(item, f"{major}.{minor}.0", strict=True)
    by_kind: dict[str, dict[str, Any]] = {f"{item['kind']}/{item['metadata']['name']}": item for item in objects}
    container = by_kind["Deployment/hone"]["spec"]["template"]["spec"]["containers"][0]
    # kustomize drops the tag where there is a digest.
    assert container["image"] in (image, re.sub(r":1@", "@", image))
    scaler = by_kind["HorizontalPodAutoscaler/hone"]["spec"]
    assert scaler["maxReplicas"] >= 5000 / capacity["rate"]
    milli = scaler["metrics"][1]["pods"]["target"]["averageValue"]
    assert float(str(milli).removesuffix("m")) > 0
    table = (tmp_path / "deploy" / "numbers.md").read_text()
    assert "requests/s" in table and "MiB" in table
    assert yaml.safe_load((tmp_path / "deploy" / "kustomization.yaml").read_text())["components"]
