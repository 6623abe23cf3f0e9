"""What a retraining did so far, in files beside the registry: a run that was killed is gone on with from there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hone.errors import HoneError, StoreError, first_problem
from hone.files import atomic_write, locked
from hone.store.registry import folder

STATE, LOCK, ENDED, WANTED = "run.json", "lock", "ended.jsonl", "wanted"
KEPT_FOLDERS = 5
"""Runs whose logs and reports are kept."""

Outcome = Literal["", "promoted", "candidate", "kept", "undecided", "failed"]


class Step(BaseModel):
    """One part of a run.

    Attributes:
        began, ended: ISO 8601, UTC; an empty `ended` is one that goes on, or was killed.
        detail: what came of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    began: str
    ended: str = ""
    detail: str = ""


class Run(BaseModel):
    """One retraining.

    Attributes:
        id: when it began, as a folder's name.
        trigger: what began it, in words.
        by_hand: a person asked for it.
        rows: that the data file held when it began; 0: none is watched.
        steps: by name, those that began.
        candidate: the tag that it made.
        outcome: promoted, candidate (it stays one), kept (the champion stays), undecided or failed; empty: not ended.
        detail: why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    name: str
    recipe: str
    trigger: str
    by_hand: bool = False
    began: str
    ended: str = ""
    rows: int = 0
    steps: dict[str, Step] = Field(default_factory=dict)
    candidate: str = ""
    outcome: Outcome = ""
    detail: str = ""

    def with_step(self, name: str, step: Step) -> Run:
        return self.model_copy(update={"steps": {**self.steps, name: step}})

    def has(self, name: str) -> bool:
        """Return whether a step came to its end."""
        return name in self.steps and bool(self.steps[name].ended)


class Journal:
    """The retrainings of one model."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.folder = folder() / "retrain" / name

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only process that retrains this model; the kernel frees what a killed one held.

        Raises:
            HoneError: another one does.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            try:
                held.enter_context(locked(self.folder / LOCK, wait=False))
            except BlockingIOError:
                told = f"{self._name} is being retrained; hone retrain status {self._name} says how far"
                raise HoneError(told) from None
            yield

    def is_busy(self) -> bool:
        """Return whether a process is at it."""
        try:
            with self.alone():
                return False
        except HoneError:
            return True

    def last(self) -> Run | None:
        """Return the last run, ended or not; None before the first.

        Raises:
            StoreError: its file can't be read.
        """
        file = self.folder / STATE
        try:
            return Run.model_validate_json(file.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreError(f"{file}: cannot be read: {error.strerror}") from None
        except ValidationError as error:
            raise StoreError(f"{file}: {first_problem(error)}; move it away to begin anew") from None

    def write(self, run: Run) -> Run:
        atomic_write(self.folder / STATE, run.model_dump_json(indent=1) + "\n", 0o600)
        return run

    def end(self, run: Run, outcome: Outcome, detail: str) -> Run:
        """Write that a run is over, and remember it among those that are."""
        ended = run.model_copy(update={"ended": now().isoformat(), "outcome": outcome, "detail": detail})
        past = [*self.ended(), ended]
        atomic_write(self.folder / ENDED, "".join(f"{each.model_dump_json()}\n" for each in past[-1000:]), 0o600)
        self.write(ended)
        kept = {each.id for each in past[-KEPT_FOLDERS:]}
        for each in past:
            if each.id not in kept:
                shutil.rmtree(self.work(each), ignore_errors=True)
        return ended

    def ended(self) -> list[Run]:
        """Return the runs that are over, oldest first."""
        try:
            lines = (self.folder / ENDED).read_text().splitlines()
        except FileNotFoundError:
            return []
        found = [Run.model_validate_json(line) for line in lines]
        return list({each.id: each for each in found}.values())

    def work(self, run: Run) -> Path:
        """Return the folder of a run's files."""
        return self.folder / run.id

    def ask(self, reason: str) -> None:
        """Ask whoever watches for a run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        atomic_write(self.folder / WANTED, reason, 0o600)

    def asked(self) -> str:
        """Return the reason that somebody asked with; empty when nobody did."""
        try:
            return (self.folder / WANTED).read_text() or "asked for"
        except FileNotFoundError:
            return ""

    def heard(self) -> None:
        (self.folder / WANTED).unlink(missing_ok=True)


def now() -> datetime:
    return datetime.now(UTC)
