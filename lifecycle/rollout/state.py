"""What a rollout has to know to go on after it was killed: a file beside the store, replaced whole at each step."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hone.errors import HoneError, first_problem
from hone.files import atomic_write
from hone.names import is_tag_part, shown
from hone.store import models_dir

FOLDER = "hone-rollouts"
Strategy = Literal["split", "canary", "blue-green", "rolling"]
Status = Literal["running", "paused", "promoted", "rolled back", "aborted"]
ENDED = ("promoted", "rolled back", "aborted")


class RolloutError(HoneError):
    """A rollout that doesn't go on.

    Args:
        exit_code: 3 when the new version does badly, 4 when there is not enough evidence, else 1.
        is_driven: another process drives it.
    """

    def __init__(self, message: str, exit_code: int = 1, *, is_driven: bool = False) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.is_driven = is_driven


class Labels(BaseModel):
    """Where it is known, later, what would have been right.

    Attributes:
        folder: HONE_FEEDBACK_DIR of the services.
        key: file of the key that it is encrypted with; empty: it isn't.
        output: of the model, that labels are about; empty: the first.
        allowed: that the share of wrong answers may be above the stable version's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: str
    key: str = ""
    output: str = ""
    allowed: float = Field(ge=0, le=1)


class Rollout(BaseModel):
    """`NAME.json`.

    Attributes:
        name: of the model.
        strategy: split, where one service has both versions loaded; else of the replicas on this host.
        url: of the service.
        ca: certificates that the service's is checked with; empty: those that the system knows.
        replicas: that there were when it began, and are to be when it is over; 0: a service deals its requests itself.
        id: of the evidence, where that isn't the service's.
        stable, canary: versions.
        steps: percent of the requests that the canary gets, one after the other.
        window_s: that each step takes at least.
        patience_s: that a step may take without enough evidence until the rollout pauses.
        limits: of the verdict.
        labels: that the verdict waits for, too; None: they don't matter.
        turns: when each step so far began, seconds since the epoch.
        rules: sticky, salt and compare, of the split.
        promotion: what the gates found, for the registry; none: the registry is left alone.
        reason: of the person who began it.
        step: of the steps, the one that is in force or about to be.
        since: when that began, seconds since the epoch; 0: it hasn't.
        status: where it stands.
        told: why it stands there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    strategy: Strategy = "split"
    url: str
    ca: str = ""
    replicas: int = Field(0, ge=0)
    id: str = ""
    stable: str
    canary: str
    steps: tuple[float, ...] = Field(min_length=1)
    window_s: float = Field(ge=0)
    patience_s: float = Field(ge=0)
    limits: dict[str, float]
    labels: Labels | None = None
    turns: tuple[float, ...] = ()
    rules: dict[str, Any] = Field(default_factory=dict)
    promotion: dict[str, Any] | None = None
    reason: str = ""
    step: int = 0
    since: float = 0.0
    status: Status = "running"
    told: str = ""

    @property
    def share(self) -> float:
        """Percent of the step."""
        return self.steps[self.step]

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def becoming(self, **changes: Any) -> Rollout:
        """Return it with other values, once they are on disk."""
        after = self.model_copy(update=changes)
        atomic_write(file_of(self.name), after.model_dump_json(indent=2) + "\n")
        return after


def file_of(name: str, kind: str = "json") -> Path:
    if not is_tag_part(name):
        raise RolloutError(f"no model {shown(name)}")
    return models_dir().resolve().parent / FOLDER / f"{name}.{kind}"


def rollout_of(name: str) -> Rollout | None:
    """Return the last rollout of a model, None where there was none.

    Raises:
        RolloutError: its file can't be read.
    """
    file = file_of(name)
    try:
        return Rollout.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RolloutError(f"{file}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise RolloutError(f"{file}: {first_problem(error)}") from None


@contextmanager
def only_one(name: str) -> Iterator[None]:
    """Let one process drive a model's rollout; the kernel frees a killed one's lock.

    Raises:
        RolloutError: another one does.
    """
    file = file_of(name, "lock")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise RolloutError(f"{file}: {error.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        driver = os.pread(handle, 32, 0).decode(errors="replace").strip()
        os.close(handle)
        by = f" by process {driver}" if driver else ""
        message = f"a rollout of '{name}' is being driven already{by}; hone rollout status {name}"
        raise RolloutError(message, is_driven=True) from None
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.ftruncate(handle, 0)
        os.close(handle)


def ask_driver(name: str, wish: Literal["pause", "abort"]) -> None:
    """Leave a wish for the process that drives a rollout."""
    atomic_write(file_of(name, "wish"), wish)


def take_wish(name: str) -> str:
    """Return what was asked for since the last time, if anything, and forget it."""
    file = file_of(name, "wish")
    try:
        wish = file.read_text()
    except FileNotFoundError:
        return ""
    file.unlink(missing_ok=True)
    return wish
