"""Trials of a search that isn't over: kept in a file beside its result, so that the next search goes on from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from hone.capacity import Slo
from hone.files import atomic_write
from hone.records import Record

from ..records import LATE_SHARE

Asked = TypeVar("Asked", bound=Record)
Tried = TypeVar("Tried", bound=Record)


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
    """

    def __init__(self, result: Path, question: Asked, kind: type[Content[Asked, Tried]]) -> None:
        self.file = result.with_name(f"{result.name}.partial")
        self._question = question
        self._kind = kind

    def read(self) -> list[Tried]:
        """Return the trials of a search of the same that was ended early; none when there was none, or of another."""
        try:
            content = self._kind.model_validate_json(self.file.read_bytes())
        except (OSError, ValidationError):
            return []
        return content.trials if content.question == self._question else []

    def write(self, trials: list[Tried]) -> None:
        """Keep all trials so far.

        Raises:
            OSError: the file can't be written.
        """
        content = self._kind(question=self._question, trials=trials)
        atomic_write(self.file, content.model_dump_json() + "\n")

    def remove(self) -> None:
        self.file.unlink(missing_ok=True)
