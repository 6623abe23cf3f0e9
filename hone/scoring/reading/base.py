"""What a file of rows is, and the register of formats."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from hone.errors import one_line

from ..errors import ScoreError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Rows:
    """Some rows of a file.

    Attributes:
        first: the number of the first in its file, from 0.
        table: a column by name; a row that can't be read holds anything.
        broken: why rows can't be read, by their place in the table.
    """

    first: int
    table: pa.Table
    broken: dict[int, str] = field(default_factory=dict)


class RowFile(ABC):
    """A file of rows; opening one reads no more than what says what is in it."""

    suffixes: ClassVar[tuple[str, ...]]
    typed: ClassVar[bool] = True
    """False where all values are text, as in .csv."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    @abstractmethod
    def names(self) -> list[str]:
        """Names of the columns, in their order."""

    @property
    def rows(self) -> int | None:
        """How many, where the file says so itself."""
        return None

    @abstractmethod
    def count(self) -> int:
        """Return how many rows there are, if need be by reading all of them."""

    @abstractmethod
    def read(self, columns: Sequence[str], start: int, stop: int | None, size: int) -> Iterator[Rows]:
        """Yield rows from `start` up to `stop`, None: the last; `size` at a time, fewer at the end.

        Raises:
            ScoreError: the file is broken.
        """

    def broken(self, error: BaseException, what: str) -> ScoreError:
        return ScoreError(f"{self.path}: can't be read as {what}: {one_line(error)}")


_REGISTER: dict[str, type[RowFile]] = {}


def register(*suffixes: str) -> Callable[[type[RowFile]], type[RowFile]]:
    """Register a format by the ends of its files' names."""

    def add(cls: type[RowFile]) -> type[RowFile]:
        cls.suffixes = suffixes
        _REGISTER.update(dict.fromkeys(suffixes, cls))
        return cls

    return add


def registered() -> dict[str, type[RowFile]]:
    return _REGISTER


def regrouped(tables: Iterable[pa.Table], first: int, size: int) -> Iterator[Rows]:
    """Yield tables of one number of rows, the last of fewer, made of tables of any."""
    import pyarrow as pa

    held: list[pa.Table] = []
    count = 0
    for table in tables:
        while len(table):
            piece = table.slice(0, size - count)
            table = table.slice(len(piece))
            held.append(piece)
            count += len(piece)
            if count == size:
                yield Rows(first, pa.concat_tables(held))
                first, held, count = first + size, [], 0
    if held:
        yield Rows(first, pa.concat_tables(held))
