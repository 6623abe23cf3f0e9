"""Files and folders that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, TypeVar

from hone.errors import HoneError, first_problem, one_line

if TYPE_CHECKING:
    from pydantic import BaseModel

Record = TypeVar("Record", bound="BaseModel")


def atomic_write(path: Path, text: str | bytes, mode: int = 0o644) -> None:
    """Write a file so that a reader sees either the old content or the whole new one.

    Args:
        mode: permissions; until its name is there the file is readable by its owner only.

    Raises:
        OSError: naming `path`.
    """
    with atomic_stream(path, mode) as stream:
        stream.write(text.encode() if isinstance(text, str) else text)


@contextmanager
def atomic_stream(path: Path, mode: int = 0o644) -> Iterator[IO[bytes]]:
    """Yield a stream whose content takes the place of a file when the block succeeds; see `atomic_write`."""
    partial = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
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


def hash_file(path: Path) -> str:
    """Return the sha256 of a file as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_record(file: Path, kind: type[Record], otherwise: str, remedy: str = "") -> Record:
    """Read a JSON file that holds one record.

    Args:
        file: to read.
        kind: a pydantic model.
        otherwise: what the file is when it doesn't fit, such as `not a load report`.
        remedy: what writes such a file, for the message when there is none.

    Raises:
        HoneError: it is missing, can't be read, or isn't one; with the first field that is wrong.
    """
    from pydantic import ValidationError

    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise HoneError(f"{file}: no such file{f'; {remedy}' if remedy else ''}") from None
    except ValidationError as error:
        raise HoneError(f"{file}: {otherwise}: {first_problem(error)}") from None
    except OSError as error:
        raise HoneError(f"{file}: can't be read: {one_line(error)}") from None
