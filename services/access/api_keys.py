"""API keys: a file of hashes, followed while serving."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hone.errors import HoneError, one_line
from hone.files import atomic_write, locked

from .callers import Caller, check_scope, key_hash

logger = logging.getLogger("hone.serving")

GONE_S = 5.0
"""A key file may be missing so long, for whoever writes it by removing and making it."""


class KeyEntry(BaseModel):
    """One API key: only its hash is kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(min_length=1, max_length=100)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scopes: tuple[str, ...] = ("predict",)
    rate_per_s: float | None = Field(None, gt=0, allow_inf_nan=False)

    @field_validator("scopes")
    @classmethod
    def _known(cls, scopes: tuple[str, ...]) -> tuple[str, ...]:
        for scope in scopes:
            check_scope(scope)
        return scopes


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
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise HoneError(f"{path}: not YAML: {one_line(error)}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise HoneError(f"{path}: {where}: {first['msg'].lower()}") from None
    return {key.sha256: Caller(key.id, frozenset(key.scopes), key.rate_per_s) for key in listed.keys}


class KeyFile:
    """A key file that is followed: a key added or taken out counts within a second, without a restart.

    A file that is broken or can't be read leaves the last good keys in use: somebody is editing it, or a disk is ill. A
    file that is gone for `GONE_S` lets nobody in until it is there again: whoever removes it means that. (Editors and
    Kubernetes replace a file in less time.) Either shows in the log and in the metric `hone_key_file_stale`.

    Args:
        path: YAML: `keys: [{id: ci, sha256: ..., scopes: [predict], rate_per_s: 100}]`.
        clock: seconds.

    Attributes:
        stale: the keys in use aren't those of the file.

    Raises:
        HoneError: it can't be read at the start.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._callers = read_keys(path)
        self._stamp: tuple[int, int, int] | None = self._mark()
        self._checked = clock()
        self._gone_since: float | None = None
        self.stale = False

    def find(self, key: bytes) -> Caller | None:
        """Return whose key this is. Hashes are looked up, so the time taken tells nothing about the key."""
        self.follow()
        return self._callers.get(key_hash(key))

    def follow(self) -> None:
        """Look for a change, once a second."""
        now = self._clock()
        if 0.0 <= now - self._checked <= 1.0:
            return
        self._checked = now
        try:
            stamp = self._mark()
        except (FileNotFoundError, NotADirectoryError):
            self._follow_gone(now)
            return
        except OSError as error:
            self._keep(f"{self._path}: can't be read: {error.strerror}")
            return
        self._gone_since = None
        if stamp == self._stamp:
            return
        try:
            self._callers = read_keys(self._path)
            self.stale = False
            logger.info("read %d API keys anew", len(self._callers))
        except HoneError as error:
            self._keep(str(error))
        self._stamp = stamp

    def _mark(self) -> tuple[int, int, int]:
        state = self._path.stat()
        return state.st_mtime_ns, state.st_ino, state.st_size

    def _keep(self, problem: str) -> None:
        if not self.stale:
            logger.error("the old API keys stay in use: %s", problem)
        self.stale = True
        self._stamp = None

    def _follow_gone(self, now: float) -> None:
        if self._gone_since is None:
            self._gone_since = now
            self.stale, self._stamp = True, None
            logger.error("%s is gone; unless it comes back, no API key is valid in %g s", self._path, GONE_S)
        elif self._callers and now - self._gone_since >= GONE_S:
            self._callers = {}
            logger.error("%s is gone: no API key is valid until it is there again", self._path)


def add_key(path: Path, identity: str, scopes: tuple[str, ...], rate_per_s: float | None = None) -> str:
    """Make a key, add its hash to a key file (made when missing, private to the user) and return the key.

    Raises:
        HoneError: the file is broken, or the identity has a key already.
    """
    with _turn(path):
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
    with _turn(path):
        entries = _entries(path)
        left = [entry for entry in entries if entry["id"] != identity]
        if len(left) == len(entries):
            there = ", ".join(entry["id"] for entry in entries) or "none"
            raise HoneError(f"{path}: nobody named '{identity}' has a key; there is {there}")
        _write(path, left)


def _turn(path: Path) -> AbstractContextManager[int]:
    """Let one process at a time read and write a key file: its folder is locked, because the file is replaced."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return locked(path.parent)


def _entries(path: Path) -> list[dict[str, Any]]:
    read_keys(path)  # says what is wrong with it
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text())["keys"]
    return entries


def _write(path: Path, entries: list[dict[str, Any]]) -> None:
    note = "# API keys of Hone's services; hashes only. Made by `hone keys`.\n"
    atomic_write(path, note + yaml.safe_dump({"keys": entries}), mode=0o600)
