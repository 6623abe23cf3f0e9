"""Where Hone keeps what it can make again: results of passes, engines, timing caches, studies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hone.errors import ArtifactError

_RUN = "HONE_RUN_FOLDER"


def cache_dir() -> Path:
    """Return $HONE_CACHE, or `hone` in the user's cache folder."""
    if os.environ.get("HONE_CACHE"):
        return Path(os.environ["HONE_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "hone"


def check_own(path: Path) -> Path:
    """Return a file or folder of the cache that is there, when nobody else can have written it.

    What is found under the right name is taken for what was made before, and some of it is code: engines, models of
    the user's own classes. In a folder that several users write, another could have put it there.

    Raises:
        ArtifactError: it belongs to another user, anybody may write it, or it is a link.
    """
    state = path.lstat()
    if path.is_symlink() or (hasattr(os, "getuid") and (state.st_uid not in (0, os.getuid()) or state.st_mode & 0o002)):
        raise ArtifactError(
            f"{path}: other users could have written it; remove it, or set HONE_CACHE to a folder of your own"
        )
    return path


def run_folder() -> Path | None:
    """Return the private folder of the run that this process belongs to; None outside of a run."""
    folder = os.environ.get(_RUN)
    return Path(folder) if folder else None


@contextmanager
def run_in(folder: Path) -> Iterator[None]:
    """Let this process, and those that it starts meanwhile, share a folder for the time of a run."""
    before = os.environ.get(_RUN)
    os.environ[_RUN] = str(folder)
    try:
        yield
    finally:
        os.environ.pop(_RUN)
        if before is not None:
            os.environ[_RUN] = before
