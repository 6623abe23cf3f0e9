"""Trials of a search that isn't over: kept in a file beside its result, so that the next search goes on from there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from hone.capacity import Slo
from hone.errors import HoneError, one_line
from hone.files import atomic_write
from hone.records import Record

from ..records import LATE_SHARE

Asked = TypeVar("Asked", bound=Record)
Tried = TypeVar("Tried", bound=Record)


class StoppedError(HoneError):
    """Ctrl-C, with trials that are kept."""

    exit_code = 130


class UnwrittenError(StoppedError):
    """The disk is full, or takes nothing for another reason; trials are kept."""

    exit_code = 1


class Question(Record):
    """What the search of a capacity is of: trials of another one are no answer to it."""

    model: str
    digest: str | None
    url: str | None
    host: dict[str, Any]
    slo: Slo
    rows: int
    workers: int
    duration_s: float
    repeats: int
    most_late: float = LATE_SHARE


class Content(Record, Generic[Asked, Tried]):
    """What such a file holds."""

    question: Asked
    trials: list[Tried]


class Kept(Generic[Asked, Tried]):
    """The file of one search.

    Args:
        result: file that the result will be written to; the trials are beside it, in `NAME.partial`.
        question: what is searched.
        kind: `Content[...]` of the question and the trials.

    Attributes:
        count: trials in the file that answer the question.
    """

    def __init__(self, result: Path, question: Asked, kind: type[Content[Asked, Tried]]) -> None:
        self.file = result.with_name(f"{result.name}.partial")
        self._question = question
        self._kind = kind
        self.count = 0

    def read(self) -> list[Tried]:
        """Return the trials of a search of the same that was ended early; none when there was none, or of another."""
        try:
            content = self._kind.model_validate_json(self.file.read_bytes())
        except (OSError, ValidationError):
            return []
        trials = content.trials if content.question == self._question else []
        self.count = len(trials)
        return trials

    def write(self, trials: list[Tried]) -> None:
        """Keep all trials so far.

        Raises:
            OSError: the file can't be written.
        """
        content = self._kind(question=self._question, trials=trials)
        atomic_write(self.file, content.model_dump_json() + "\n")
        self.count = len(trials)

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
        self.count = 0

    @contextmanager
    def told(self) -> Iterator[None]:
        """Say in what ends the block that trials are kept, and how to go on.

        Raises:
            StoppedError: Ctrl-C.
            UnwrittenError: a file can't be written.
            HoneError: any other, with its exit status.
        """
        try:
            yield
        except KeyboardInterrupt:
            raise StoppedError(f"interrupted{self._words}") from None
        except (StoppedError, BrokenPipeError):
            raise
        except HoneError as error:
            told = HoneError(f"{error}{self._words}")
            told.exit_code = error.exit_code
            raise told from None
        except OSError as error:
            place = f"{error.filename}: " if error.filename else ""
            raise UnwrittenError(f"{place}{error.strerror or one_line(error)}{self._words}") from None

    @property
    def _words(self) -> str:
        if not self.count:
            return ""
        kept = f"{self.count} trial{'s are' if self.count > 1 else ' is'} kept in {self.file}"
        return f"; {kept}, the same command goes on from there"
