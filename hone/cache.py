"""Where Hone keeps what it can make again: results of passes, engines, timing caches, studies."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hone.errors import ArtifactError

_RUN = "HONE_RUN_FOLDER"


def cache_dir() -> Path:
    """Return $HONE_CACHE, or `hone` in the user's cache folder."""
    if os.environ.get("HONE_CACHE"):
        return Path(os.environ["HONE_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "hone"


@dataclass(frozen=True)
class Cached:
    """One thing in the cache.

    Attributes:
        path: a file, or a folder with all of it.
        kind: the folder of the cache that it lies in: passes, sources, tensorrt, search, environments.
        size_bytes: of all its files.
        used: when one of them was last written or read, as far as the file system tells; seconds since 1970.
    """

    path: Path
    kind: str
    size_bytes: int
    used: float

    def remove(self) -> None:
        """Delete it; a folder gets another name first, so that nobody finds half of it.

        Raises:
            OSError: it can't be.
        """
        if not self.path.is_dir():
            self.path.unlink(missing_ok=True)
            return
        gone = self.path.with_name(f".{self.path.name}.gone")
        self.path.rename(gone)
        shutil.rmtree(gone)


def cached() -> list[Cached]:
    """Return what is in the cache, what was used last first."""
    root = cache_dir()
    kinds = [path for path in root.iterdir() if path.is_dir() and not path.is_symlink()] if root.is_dir() else []
    found = [_look(path, kind.name) for kind in kinds for path in kind.iterdir() if not path.is_symlink()]
    return sorted(found, key=lambda one: one.used, reverse=True)


def _look(path: Path, kind: str) -> Cached:
    files = [file for file in path.rglob("*") if file.is_file() and not file.is_symlink()] if path.is_dir() else [path]
    states = [file.stat() for file in files]
    used = max([path.stat().st_mtime, *(max(state.st_mtime, state.st_atime) for state in states)])
    return Cached(path, kind, sum(state.st_size for state in states), used)


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
