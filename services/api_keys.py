"""API keys: a file of hashes, followed while serving."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hone.artifact import atomic_write
from hone.errors import HoneError
from services.callers import Caller, Scope, key_hash

logger = logging.getLogger("hone.serving")


class KeyEntry(BaseModel):
    """One API key: only its hash is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1, max_length=100)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: tuple[Scope, ...] = ("predict",)
    rate_per_s: float | None = Field(None, gt=0)


class KeyList(BaseModel):
    """The content of a key file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keys: tuple[KeyEntry, ...]

    @field_validator("keys")
    @classmethod
    def _unique(cls, keys: tuple[KeyEntry, ...]) -> tuple[KeyEntry, ...]:
        for what, values in (("id", [key.id for key in keys]), ("sha256", [key.sha256 for key in keys])):
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise ValueError(f"{what} '{sorted(twice)[0]}' is given twice")
        return keys


def new_key(identity: str, scopes: tuple[str, ...], rate_per_s: float | None = None) -> tuple[str, dict[str, Any]]:
    """Return a random key of 256 bits, which is shown once, and the entry of the key file that stands for it."""
    key = secrets.token_urlsafe(32)
    entry: dict[str, Any] = {"id": identity, "sha256": key_hash(key.encode()), "scopes": list(scopes)}
    if rate_per_s is not None:
        entry["rate_per_s"] = rate_per_s
    return key, entry


def read_keys(path: Path) -> dict[str, Caller]:
    """Return callers by the hash of their key.

    Raises:
        HoneError: naming the file and the field that is wrong.
    """
    try:
        listed = KeyList.model_validate(yaml.safe_load(path.read_text()))
    except OSError as error:
        raise HoneError(f"{path}: can't be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise HoneError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise HoneError(f"{path}: {where}: {first['msg'].lower()}") from None
    return {key.sha256: Caller(key.id, frozenset(key.scopes), key.rate_per_s) for key in listed.keys}


class KeyFile:
    """A key file that is followed: a key added or taken out counts within a second, without a restart.

    Args:
        path: YAML: `keys: [{id: ci, sha256: ..., scopes: [predict], rate_per_s: 100}]`.
        clock: seconds.

    Raises:
        HoneError: it can't be read at the start. Broken later, the last good keys count, and one line says so.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._callers = read_keys(path)
        self._stamp = self._mark()
        self._checked = clock()

    def find(self, key: bytes) -> Caller | None:
        """Return whose key this is. Hashes are looked up, so the time taken tells nothing about the key."""
        if self._clock() - self._checked > 1.0:
            self._refresh()
        return self._callers.get(key_hash(key))

    def _mark(self) -> tuple[int, int]:
        try:
            state = self._path.stat()
        except OSError:
            return (0, 0)
        return state.st_mtime_ns, state.st_ino

    def _refresh(self) -> None:
        self._checked = self._clock()
        stamp = self._mark()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._callers = read_keys(self._path)
            logger.info("read %d API keys anew", len(self._callers))
        except HoneError as error:
            logger.warning("the old API keys stay in use: %s", error)


def add_key(path: Path, identity: str, scopes: tuple[str, ...], rate_per_s: float | None = None) -> str:
    """Make a key, add its hash to a key file (made when missing, private to the user) and return the key.

    Raises:
        HoneError: the file is broken, or the identity has a key already.
    """
    entries = [] if not path.exists() else _entries(path)
    if any(entry["id"] == identity for entry in entries):
        raise HoneError(f"{path}: '{identity}' has a key; remove it first: hone keys rm {identity} --file {path}")
    key, entry = new_key(identity, scopes, rate_per_s)
    _write(path, [*entries, entry])
    return key


def remove_key(path: Path, identity: str) -> None:
    """Take a key out of a key file.

    Raises:
        HoneError: the file is broken, or nobody of this name has a key.
    """
    entries = _entries(path)
    left = [entry for entry in entries if entry["id"] != identity]
    if len(left) == len(entries):
        raise HoneError(f"{path}: nobody named '{identity}' has a key; there is {', '.join(e['id'] for e in entries)}")
    _write(path, left)


def _entries(path: Path) -> list[dict[str, Any]]:
    read_keys(path)  # says what is wrong with it
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text())["keys"]
    return entries


def _write(path: Path, entries: list[dict[str, Any]]) -> None:
    note = "# API keys of Hone's services; hashes only. Made by `hone keys`.\n"
    atomic_write(path, note + yaml.safe_dump({"keys": entries}))
    path.chmod(0o600)
