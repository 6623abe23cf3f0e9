"""Errors that people read: one line that says what is wrong, where, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class HoneError(Exception):
    """Base of every error Hone raises on purpose; the command line prints it as one line, without a traceback."""

    exit_code = 1


class RecipeError(HoneError):
    """The recipe, or a file it names, is wrong. The message starts with `file: field`."""

    exit_code = 2


class ArtifactError(HoneError):
    """An artifact on disk is missing, incomplete or corrupt. The message names the file."""


class GoldenError(ArtifactError):
    """An artifact that gives other answers on this host than it gave in its proof."""

    exit_code = 3


class SignatureError(HoneError):
    """Tensors that do not match a signature. The message names the tensor."""


class InputError(SignatureError):
    """Values that fit the signature, but that the model can't compute with, such as a token id that it doesn't know."""


class ModelError(HoneError):
    """A model's own code failed on rows that it should answer, or its process has ended."""


class RestartingError(ModelError):
    """A model can't answer now, because its process is started again; it will before long."""


class PassError(HoneError):
    """A pass could not transform its input. The message names the layer or node, and the remedy."""


class StoreError(HoneError):
    """A tag that the model store does not hold, or one that it already holds."""


class UnavailableError(HoneError):
    """This host cannot do it: a package, a library or a piece of hardware is missing.

    Args:
        reason: what is missing.
        remedy: the command or the host that makes it available.
    """

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


class BudgetError(HoneError):
    """No variant meets the budget."""

    exit_code = 3


class LimitError(HoneError):
    """A load test missed its limits."""

    exit_code = 3


class UndecidedError(HoneError):
    """A load test was too short, or evaluation rows are too few, to tell whether limits hold."""

    exit_code = 4


MOST_QUOTED = 100
"""Characters of a name that a message quotes; callers make names up, of any length."""


def shorten(text: object, limit: int = MOST_QUOTED) -> str:
    """Return a text for a message: its start and an ellipsis when it is longer than `limit` characters."""
    text = text if isinstance(text, str) else str(text)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def first_problem(error: ValidationError, whole: str = "file") -> str:
    """Return `field: what is wrong with it` of the first thing that pydantic found; `whole` stands for no field."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or whole}: {first['msg']}"


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or the list of valid names when none is near.

    Comparing takes the product of both lengths, so a name too long to be a slip of the pen is compared with none.
    """
    names = sorted(valid)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6) if len(name) <= MOST_QUOTED else []
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; valid: {', '.join(names)}" if names else ""


def one_line(error: BaseException, limit: int = 400) -> str:
    """Return the first meaningful line of an exception, for a message that must stay on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return shorten(lines[0], limit) if lines else type(error).__name__


@contextmanager
def shown_as(path: Path, name: str) -> Iterator[None]:
    """Name a temporary path in the messages of errors by what it stands for; it is gone when they are read."""
    try:
        yield
    except HoneError as error:
        error.args = (str(error).replace(str(path), name),)
        raise
