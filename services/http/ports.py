"""Ports: free before a server starts, and shared by the workers of one server only.

Workers share a gRPC port through SO_REUSEPORT, which the kernel grants to every process of the same user: two servers
with one port would get each other's callers, without an error. So a worker joins a port in use only when a worker of
its own server was there first.
"""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from hone.errors import HoneError

from ..settings import SHARED_TEMP


def require_free_port(host: str, port: int, setting: str) -> None:
    """Raise HoneError when somebody listens on a port already.

    Args:
        host, port: to listen on.
        setting: that the message asks to change.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise HoneError(f"can't listen on {host}:{port}: {error.strerror}; choose another {setting}") from None


@contextmanager
def joining(host: str, port: int, setting: str) -> Iterator[None]:
    """Hold while a worker starts to listen on a port with SO_REUSEPORT.

    A file for each port names the server, the workers' parent process, that came first. One worker at a time looks
    whether somebody listens, and who.

    Raises:
        HoneError: somebody else listens there.
    """
    server = f"{os.getppid()} {psutil.Process(os.getppid()).create_time()}"
    with (_private_folder() / f"grpc-{port}").open("a+") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        owner.seek(0)
        if owner.read() != server:
            require_free_port(host, port, setting)
            owner.truncate(0)
            owner.write(server)
            owner.flush()
        yield


def _private_folder() -> Path:
    """Return a folder that no other user can write to.

    Raises:
        HoneError: another user took its name.
    """
    folder = Path(os.environ.get(SHARED_TEMP) or tempfile.gettempdir()) / f"hone-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    state = folder.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o077 or folder.is_symlink():
        raise HoneError(f"{folder} is not private to this user; remove it, or set TMPDIR")
    return folder
