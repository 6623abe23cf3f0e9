"""What replicas there are to be, and what there is: two files beside the store, each replaced whole.

`wanted.json` is written by whoever changes something, such as a rollout; `seen.json` by the process that keeps the
replicas running (`supervise.py`). So each may be killed at any moment, and what comes later goes on from the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hone.errors import HoneError, first_problem
from hone.files import atomic_write, locked
from hone.names import is_tag_part, shown
from hone.store import models_dir

FOLDER = "hone-replicas"
MOST = 64
"""Replicas on one host."""

State = Literal["starting", "ready", "unready", "waiting", "given up", "stopping"]


class ReplicasError(HoneError):
    """Replicas that can't be started, changed or found."""


class Replica(BaseModel):
    """One process that serves a version.

    Attributes:
        id: never given twice.
        version: of the model.
        port, grpc_port: on loopback; nginx is in front of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(pattern=r"^r\d{1,9}$")
    version: str
    port: int = Field(ge=1, le=65535)
    grpc_port: int | None = Field(None, ge=1, le=65535)


class Wanted(BaseModel):
    """`wanted.json`.

    Attributes:
        name: of the model.
        host, port, grpc_port: where nginx listens.
        tls: files of the certificate that it shows, and of its key; None: it speaks plain HTTP.
        options: of `hone serve`, for every replica.
        replicas: that are to run.
        shares: percent of the requests by version; a version without one runs and gets none.
        made: ids that were ever given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    host: str = "127.0.0.1"
    port: int = Field(ge=1, le=65535)
    grpc_port: int | None = Field(None, ge=1, le=65535)
    tls: tuple[str, str] | None = None
    options: tuple[str, ...] = ()
    replicas: tuple[Replica, ...] = Field(min_length=1, max_length=MOST)
    shares: dict[str, float]
    made: int = 0

    @model_validator(mode="after")
    def _whole(self) -> Wanted:
        if any(not 0 < share <= 100 for share in self.shares.values()) or round(sum(self.shares.values()), 6) != 100:
            raise ValueError("the shares must be over 0, and 100 together")
        if missing := self.shares.keys() - {replica.version for replica in self.replicas}:
            raise ValueError(f"no replica of {', '.join(sorted(missing))} is there for its share")
        return self

    @property
    def versions(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(replica.version for replica in self.replicas))

    def of(self, version: str) -> tuple[Replica, ...]:
        """Return the replicas of a version, oldest first."""
        return tuple(replica for replica in self.replicas if replica.version == version)


class Life(BaseModel):
    """One replica as it is.

    Attributes:
        id, version, port: as wanted.
        pid: of its process; 0: there is none now.
        state: unready: it runs, but says not to send requests; waiting: to be started again.
        since: seconds since the epoch.
        failures: starts or ends in a row that went wrong.
        restarts: in all.
        why: of the last failure.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    version: str
    port: int
    pid: int = 0
    state: State = "starting"
    since: float = 0.0
    failures: int = 0
    restarts: int = 0
    why: str = ""


class Seen(BaseModel):
    """`seen.json`.

    Attributes:
        pid: of the process that keeps them running.
        url: at which nginx answers.
        lives: of the replicas, those that are about to end too.
        in_force: the shares that nginx deals requests by; empty: it doesn't answer yet.
        balancer: its process id; 0: it doesn't run.
        why: of what is wrong with nginx.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    pid: int
    url: str
    lives: tuple[Life, ...] = ()
    in_force: dict[str, float] = Field(default_factory=dict)
    balancer: int = 0
    why: str = ""

    def ready(self, version: str) -> tuple[Life, ...]:
        return tuple(life for life in self.lives if life.version == version and life.state == "ready")


def folder_of(name: str) -> Path:
    """Return where everything about a model's replicas lies."""
    if not is_tag_part(name):
        raise ReplicasError(f"no model {shown(name)}")
    return models_dir().resolve().parent / FOLDER / name


def names() -> list[str]:
    """Return the models that have replicas, or had."""
    return sorted(file.parent.name for file in (models_dir().resolve().parent / FOLDER).glob("*/wanted.json"))


def wanted_of(name: str) -> Wanted | None:
    """Return what is to run; None: nothing. Raises ReplicasError when the file can't be read."""
    return _read(folder_of(name) / "wanted.json", Wanted)


def seen_of(name: str) -> Seen | None:
    """Return what runs; None where no process keeps it running."""
    return _read(folder_of(name) / "seen.json", Seen) if is_kept(name) else None


def want(wanted: Wanted) -> Wanted:
    """Put down what is to run; return it."""
    checked = Wanted.model_validate(wanted.model_dump())
    atomic_write(folder_of(wanted.name) / "wanted.json", checked.model_dump_json(indent=2) + "\n", mode=0o600)
    return checked


def show(name: str, seen: Seen) -> None:
    """Put down what runs."""
    text = seen.model_dump_json(indent=2) + "\n"
    atomic_write(folder_of(name) / "seen.json", text, mode=0o600, durable=False)


def forget(name: str) -> None:
    """Let the next start be a new one."""
    (folder_of(name) / "wanted.json").unlink(missing_ok=True)


@contextmanager
def keeping(name: str) -> Iterator[None]:
    """Let one process keep a model's replicas running; the kernel frees a killed one's lock.

    Raises:
        ReplicasError: another one does.
    """
    folder = folder_of(name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        with locked(folder / "lock", wait=False) as handle:
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            try:
                yield
            finally:
                (folder / "seen.json").unlink(missing_ok=True)
                os.ftruncate(handle, 0)
    except BlockingIOError:
        raise ReplicasError(f"'{name}' is up already, by process {keeper(name)}; hone down {name}") from None


def is_kept(name: str) -> bool:
    """Return whether a process keeps a model's replicas running now."""
    file = folder_of(name) / "lock"
    if not file.exists():
        return False
    try:
        with locked(file, wait=False):
            return False
    except BlockingIOError:
        return True


def keeper(name: str) -> int:
    """Return the process that keeps a model's replicas running; 0: it has only begun, or ended."""
    text = (folder_of(name) / "lock").read_text()
    return int(text) if text.isdigit() else 0


Content = TypeVar("Content", Wanted, Seen)


def _read(file: Path, kind: type[Content]) -> Content | None:
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReplicasError(f"{file}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise ReplicasError(f"{file}: {first_problem(error)}") from None
