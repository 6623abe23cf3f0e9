"""Files and folders that are whole or not there: written beside their place, then renamed.

Where several processes change one, a lock lets one at a time do it.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from hone.errors import HoneError, one_line


def atomic_write(path: Path, text: str | bytes, mode: int = 0o644, *, durable: bool = True) -> None:
    """Write a file so that a reader sees either the old content or the whole new one.

    Args:
        mode: permissions; until its name is there the file is readable by its owner only.
        durable: False doesn't wait for the disk, so that a crash of the machine may leave an empty file.

    Raises:
        OSError: naming `path`.
    """
    with atomic_stream(path, mode, durable=durable) as stream:
        stream.write(text.encode() if isinstance(text, str) else text)


@contextmanager
def atomic_stream(path: Path, mode: int = 0o644, *, durable: bool = True) -> Iterator[IO[bytes]]:
    """Yield a stream whose content takes the place of a file when the block succeeds; see `atomic_write`."""
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
            if mode != 0o600:  # what mkstemp makes
                os.fchmod(stream.fileno(), mode)
        Path(partial).replace(path)
    except BaseException as error:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def check_writable(folder: Path, what: str) -> None:
    """Raise before hours of work what would otherwise be found out after them.

    Raises:
        HoneError: no file can be made in the folder, or it can't be made itself.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as stream:
            stream.write(b"\0" * 4096)
            stream.flush()
    except OSError as error:
        raise HoneError(f"{what} can't be written to {folder}: {error.strerror or one_line(error)}") from None


@contextmanager
def atomic_directory(target: Path) -> Iterator[Path]:
    """Yield a temporary sibling directory that takes the target's name only when the block succeeds."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    try:
        yield partial
        partial.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def locked(path: Path, flags: int = 0, *, wait: bool = True) -> Iterator[int]:
    """Hold the lock of a file, or of a folder, and yield its descriptor; the kernel frees a killed process's lock.

    Args:
        path: a folder, or a file that is made when it is missing, readable by its owner only.
        flags: to open the file with, beside those to read and write it.
        wait: for whoever holds it.

    Raises:
        BlockingIOError: somebody holds it, and this is not to wait.
        OSError: it can't be opened.
    """
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT | flags, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield handle
    finally:
        os.close(handle)


def hash_file(path: Path) -> str:
    """Return the sha256 of a file as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class Metered(io.RawIOBase):
    """A stream that gives so many bytes and no more: a header of an archive may claim any length.

    Attributes:
        allowed: bytes that may still be read; whoever reads sets it anew as he learns what is to come.
    """

    def __init__(self, stream: IO[bytes] | gzip.GzipFile, allowed: int, otherwise: Exception) -> None:
        self._stream = stream
        self._otherwise = otherwise
        self.allowed = allowed

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.allowed -= len(data)
        if self.allowed < 0:
            raise self._otherwise
        return data
