"""From a stored digits artifact to checked manifests, as k8s/README.md has it, on a machine without a Docker engine."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
import yaml

from hone import store
from hone.k8s.tools.registry.keys import MAKE, fingerprint, read_signing_key
from hone.k8s.tools.registry.signatures import verify
from hone.services.launch import free_port
from hone.services.observe.recording import read
from tests.containers import call, container, files, layers, mirror, run_inside, running_registry, wait_answer
from tests.later import later
from tests.servers import ROOT

HONE = "from hone.cli.main import main; main()"
BASE = "localhost/hone-test/base:bookworm"
KEYS = "digits-caller"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        not all(map(shutil.which, ("buildah", "mmdebstrap", "kubectl", "docker-registry"))) or os.geteuid() != 0,
        reason="needs buildah, mmdebstrap, docker-registry and kubectl, as root",
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


@pytest.fixture
def registry(engine: dict[str, str], tmp_path: Path) -> Iterator[str]:
    with running_registry(engine, tmp_path) as address:
        yield address


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    call([sys.executable, "-c", HONE, "k8s", "wheels", "--out", str(folder)], dict(os.environ))
    return folder


def hone(environment: dict[str, str], cwd: Path, *arguments: str) -> str:
    here = {name: os.environ[name] for name in ("BENTOML_HOME", "HONE_CACHE")}  # of this test
    return call([sys.executable, "-c", HONE, *arguments], {**environment, **here}, cwd)


def measured(environment: dict[str, str], cwd: Path) -> None:
    measure = ["bench", "capacity", "digits", "--p99", "500ms", "--duration", "2", "--repeats", "1", "--minutes", "1"]
    measure += ["--max-late", "100%"]  # other tests may run beside this one
    hone(environment, cwd, *measure, "--out", "capacity.json")


def test_from_artifact_to_checked_manifests(
    engine: dict[str, str], wheels: Path, registry: str, tmp_path: Path
) -> None:
    entries = digits(engine, tmp_path)
    tag = f"{registry}/hone/digits:1"
    build = ["containerize", "digits", "--engine", "buildah", "--base", BASE, "--label", "team=digits"]
    build += ["--and", "digits:onnx-fp32"]
    call(shlex.split(MAKE), engine, tmp_path)
    push = ["--tag", tag, "--push", "--sign-key", "cosign.key", "--record", "image.json"]
    said = hone(engine, tmp_path, *build, "--wheels", str(wheels), *push)
    record = json.loads((tmp_path / "image.json").read_text())
    key = read_signing_key(tmp_path / "cosign.key", str).public_key()
    assert verify(tag, key) == record["digest"]
    assert record["signed_by"] == fingerprint(key)
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

    measured(engine, tmp_path)
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


def check_imports(engine: dict[str, str], tag: str) -> None:
    """Every feature's package is there and loads, also those that were made smaller."""
    names = ["grpc", "jwt", "cryptography.hazmat.primitives", "opentelemetry.exporter.otlp.proto.http.trace_exporter"]
    names += [
        "redis.asyncio",
        "zstandard",
        "pyarrow.ipc",
        "pyarrow.parquet",
        "hone.services.access.tokens",
        "hone.services.cache.redis_cache",
    ]
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
    recorded = tmp_path / "recorded"
    recorded.mkdir()
    os.chown(recorded, 10001, 10001)
    volumes = {keys: "/etc/hone/keys:ro", recorded: "/var/recorded"}
    variables = {"HONE_API_KEYS": "/etc/hone/keys/keys.yaml", "HONE_DRAIN_S": "4", "HONE_RECORD_DIR": "/var/recorded"}
    with container(engine, tag, tmp_path / "container.log", volumes, **variables) as (url, root, first):
        wait_answer(f"{url}/readyz")
        before = files(root)
        key = next(word for word in secret if len(word) > 30)
        known = later("sklearn.datasets").load_digits()
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
    assert read(recorded, "digits").num_rows >= 220


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


def check_manifests(tmp_path: Path, image: str) -> None:
    import kubernetes_validate

    from hone.k8s.tools.cluster import manifests
    from hone.k8s.tools.preflight import NEWEST, OLDEST

    capacity = json.loads((tmp_path / "capacity.json").read_text())
    assert capacity["rate"] > 20
    assert capacity["plan"]["digest"] == capacity["digest"]
    assert json.loads((tmp_path / "deploy/plan.json").read_text()) == capacity["plan"]
    objects = manifests(tmp_path / "deploy")
    for item in objects:
        for major, minor in (OLDEST, NEWEST):
            kubernetes_validate.validate(item, f"{major}.{minor}.0", strict=True)
    by_kind: dict[str, dict[str, Any]] = {f"{item['kind']}/{item['metadata']['name']}": item for item in objects}
    container = by_kind["Deployment/hone"]["spec"]["template"]["spec"]["containers"][0]
    assert container["image"] == image
    scaler = by_kind["HorizontalPodAutoscaler/hone"]["spec"]
    assert scaler["maxReplicas"] >= 5000 / capacity["rate"]
    milli = scaler["metrics"][1]["pods"]["target"]["averageValue"]
    assert float(str(milli).removesuffix("m")) > 0
    table = (tmp_path / "deploy" / "numbers.md").read_text()
    assert "requests/s" in table and "MiB" in table
    assert yaml.safe_load((tmp_path / "deploy" / "kustomization.yaml").read_text())["components"]
