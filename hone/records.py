"""Records that one command writes as JSON and another reads: a measured capacity, a load report; findings of checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from hone.errors import HoneError, first_problem, one_line

Kind = TypeVar("Kind", bound=BaseModel)
Verdict = Literal["met", "missed", "undecided"]
"""Whether a limit holds: beyond doubt, beyond doubt not, or what was measured doesn't tell."""


class Record(BaseModel):
    """Base of records: a field that isn't known is an error, and none changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Finding:
    """One thing that was checked before a deployment, or of a running one.

    Attributes:
        name: what was looked at.
        state: ok; missing or failed; unknown: it could not be looked at.
        detail: what was found.
        remedy: what to do when it isn't ok.
    """

    name: str
    state: str
    detail: str
    remedy: str = ""

    @property
    def is_bad(self) -> bool:
        return self.state in ("missing", "failed")


def read_record(file: Path, kind: type[Kind], what: str, writer: str = "") -> Kind:
    """Read a record.

    Args:
        file: of JSON.
        kind: what it must hold.
        what: the same in words, such as 'a measured capacity'.
        writer: the command that writes such a file, for the message when there is none.

    Raises:
        HoneError: it is missing, can't be read, or holds something else; the message names the field.
    """
    try:
        return kind.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        hint = f"; '{writer}' writes one" if writer else ""
        raise HoneError(f"{file}: no such file{hint}") from None
    except OSError as error:
        raise HoneError(f"{file}: can't be read: {error.strerror or one_line(error)}") from None
    except ValidationError as error:
        raise HoneError(f"{file}: not {what}: {first_problem(error)}") from None
