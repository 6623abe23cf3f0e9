"""Other servers, each in an environment of its own and at its best documented settings, serving the same ONNX file.

A peer is one script here, which runs in its environment and imports nothing of Hone, and one row of `PEERS`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hone.errors import HoneError
from hone.processes import why_failed

HERE = Path(__file__).parent
RUNTIME = ("onnxruntime==1.31.1", "numpy")


@dataclass(frozen=True)
class Peer:
    """A server to compare with.

    Attributes:
        name: in reports.
        requirements: exact versions, beside the ONNX Runtime that all share.
        script: in this folder.
        ready_path: answers 200 when it serves.
        settings: what was chosen, and where its documentation says so.
        pausable: it survives being stopped between its turns; one that is not runs alone, after the others.
    """

    name: str
    requirements: tuple[str, ...]
    script: str
    ready_path: str
    settings: str
    pausable: bool = True


PEERS = (
    Peer(
        "bentoml",
        ("bentoml==1.4.39", "uvloop==0.23.0", "httptools==0.9.0"),
        "bentoml_plain.py",
        "/readyz",
        "batchable method, numpy arrays as JSON, max_batch_size 64; docs.bentoml.com, adaptive batching",
        pausable=False,  # its batcher learns from how long requests took, a stop included
    ),
    Peer(
        "fastapi",
        ("fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "orjson==3.13.0"),
        "fastapi_peer.py",
        "/ready",
        "uvicorn with uvloop and httptools, no access log, orjson, heap frozen; no batching of its own",
    ),
    Peer(
        "litserve",
        ("litserve==0.2.19", "uvloop==0.23.0", "httptools==0.9.0"),
        "litserve_peer.py",
        "/health",
        "max_batch_size 64, batch_timeout 1 ms, one worker; lightning.ai/docs/litserve, batching. JSON only",
    ),
    Peer(
        "mlserver",
        ("mlserver==1.7.1",),
        "mlserver_peer.py",
        "/v2/health/ready",
        "adaptive batching of 64 rows within 1 ms, parallel_workers 0, V2 JSON; docs.seldon.ai/mlserver",
    ),
    Peer(
        "rayserve",
        ("ray[serve]==2.60.0",),
        "rayserve_peer.py",
        "/",
        "one replica, serve.batch of 64 rows within 1 ms, access log off; docs.ray.io, dynamic request batching",
        pausable=False,
    ),
    Peer(
        "pytriton",
        ("nvidia-pytriton==0.7.0",),
        "pytriton_peer.py",
        "/v2/models/model/ready",
        "Triton's dynamic batcher, 64 rows within 0.5 ms, V2 binary; triton-inference-server.github.io/pytriton",
    ),
    Peer(
        "bare-asgi",
        ("uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0"),
        "bare_asgi.py",
        "/",
        "one call of ONNX Runtime in a bare ASGI function; no checks, no batching, no metrics",
    ),
)

OLIVE = Peer(
    "olive",
    ("olive-ai==0.13.0", "torch==2.13.0", "onnxscript==0.7.2", "requests==2.34.2"),
    "olive_peer.py",
    "",
    "peephole and transformer optimization, then per-channel int8; microsoft.github.io/Olive, quantization",
)
"""A converter, for `benchmarks.converters.__main__`; it serves nothing."""


def environment(peer: Peer, root: Path) -> Path:
    """Return the Python of a peer's environment, made when its requirements are new.

    Raises:
        HoneError: the installer failed; the message is its last line.
    """
    folder = root / peer.name
    python, stamp = folder / "bin" / "python", folder / "requirements.stamp"
    requirements = [*peer.requirements, *RUNTIME]
    wanted = hashlib.sha256(json.dumps(requirements).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    shutil.rmtree(folder, ignore_errors=True)
    for command in (
        [uv, "venv", "--quiet", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python), *requirements],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise HoneError(f"{peer.name} can't be installed: {why_failed(done.stderr)}")
    stamp.write_text(wanted)
    return python


def start(peer: Peer, python: Path, model: Path, port: int, threads: int, folder: Path) -> subprocess.Popen[bytes]:
    """Start a peer's server on a port, in a process group of its own; its log goes to `folder`."""
    variables = {
        **os.environ,
        "PEER_MODEL": str(model),
        "PEER_PORT": str(port),
        "PEER_THREADS": str(threads),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "RAY_DEDUP_LOGS": "0",
    }
    with (folder / f"{peer.name}.log").open("ab") as stream:
        return subprocess.Popen(
            [str(python), str(HERE / peer.script)],
            env=variables,
            cwd=folder,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
