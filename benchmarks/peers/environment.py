"""The environments that peers run in, and their processes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hone.errors import HoneError
from hone.processes import output_of

from .description import Peer, Server


def environment(peer: Peer[Any], root: Path) -> Path:
    """Return the Python of a peer's environment, made when its requirements are new.

    Args:
        root: folder of all environments.

    Raises:
        HoneError: the installer failed; the message is the line of its output that tells why.
    """
    folder = root / peer.name
    python, stamp = folder / "bin" / "python", folder / "requirements.stamp"
    wanted = hashlib.sha256(json.dumps(peer.requirements).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        output_of([uv, "venv", "--quiet", "--python", sys.executable, str(folder)], "uv venv")
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", str(python)]
        output_of([*install, *peer.requirements], "uv pip install")
    except HoneError as error:
        raise HoneError(f"{peer.name} can't be installed: {error}") from None
    stamp.write_text(wanted)
    return python


def start(
    peer: Peer[Server], python: Path, model: Path, port: int, threads: int, folder: Path
) -> subprocess.Popen[bytes]:
    """Start a peer's server on a port, in a process group of its own; its log goes to `folder`."""
    variables = {
        **os.environ,
        "PEER_MODEL": str(model),
        "PEER_PORT": str(port),
        "PEER_THREADS": str(threads),
        "PEER_FOLDER": str(folder),
    }
    with (folder / f"{peer.name}.log").open("ab") as stream:
        return subprocess.Popen(
            [str(python), str(peer.script)],
            env=variables,
            cwd=folder,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
        )
