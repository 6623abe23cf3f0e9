"""The temporary folder of a started server: removed when the server ends, or by a later start when it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PREFIX = "hone-serve-"
OWNER = "owner.lock"


@dataclass(frozen=True)
class ServeFolder:
    """A folder in use.

    Attributes:
        path: of it.
        lock: file descriptor whose lock says that the folder is in use; the server inherits it, so that a folder counts
            as left behind only when both the starter and the server are gone.
    """

    path: Path
    lock: int


@contextlib.contextmanager
def serve_folder() -> Iterator[ServeFolder]:
    """Yield a new folder; remove those that killed servers left behind first, and this one afterwards."""
    remove_stale()
    path = Path(tempfile.mkdtemp(prefix=PREFIX))
    lock = os.open(path / OWNER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield ServeFolder(path, lock)
    finally:
        os.close(lock)
        shutil.rmtree(path, ignore_errors=True)


def remove_stale() -> None:
    """Remove this user's folders whose server and starter are gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            # A folder without the file is just being made, or isn't one of these.
            handle = os.open(folder / OWNER, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(handle)
