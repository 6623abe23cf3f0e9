"""What a step is: options that say what it takes and gives, and what runs it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from hone.errors import HoneError, InputError, did_you_mean
from hone.signature import BATCH, DTYPES, TensorSpec

Columns = dict[str, np.ndarray]
"""What flows between steps, by name: tensors, and 1-axis arrays of Python objects (text, bytes)."""
Run = Callable[[Columns], Columns]
"""A step made ready: from the columns that it takes (and others) to those that it gives."""

BYTES = "bytes"
"""A dtype that only callers' inputs have: files, such as pictures."""
COUNTS = "#tokens"
"""Column beside the declared ones: how many tokens each row has before it is filled up."""
MOST_BYTES = "#bytes"
"""Another one: the bytes of tensors that may be made of these rows; where it isn't there, as many as it takes."""


class StepError(HoneError):
    """A step that doesn't fit its model, or whose file can't be used; the message names the step."""


class TooMuchError(InputError):
    """Rows that steps would make more of than they may.

    Args:
        needed: bytes of tensors.
        most: that may be made.
    """

    def __init__(self, needed: int, most: int) -> None:
        super().__init__(f"the steps would make {needed / 1e6:.0f} MB of these rows, {most / 1e6:.0f} MB are allowed")
        self.needed = needed


def check_bytes(columns: Columns, needed: int) -> None:
    """Raise TooMuchError when a step needs more memory for its tensors than these rows may take."""
    most = columns.get(MOST_BYTES)
    if most is not None and needed > most:
        raise TooMuchError(needed, int(most))


class ColumnSpec(TensorSpec):
    """A tensor between steps, or what a caller gives; beside tensors' dtypes there is `bytes`.

    Attributes:
        sample: a value of a caller's input, for documentation; None: made from the dtype.
    """

    dtype: str = "float32"
    sample: str | float | None = None

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(object) if self.dtype == BYTES else super().numpy_dtype

    def example(self, rows: int = 1, axis_size: int = 4) -> np.ndarray:
        """Return the sample as often as there are rows; without one as of every tensor."""
        if self.sample is None and self.dtype != BYTES:
            return super().example(rows, axis_size)
        made = np.empty([rows if axis == BATCH else 1 for axis in self.shape], self.numpy_dtype)
        made[...] = TINY_PICTURE if self.dtype == BYTES else self.sample
        return made


Specs = Mapping[str, ColumnSpec]

TINY_PICTURE = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000"
    "040001f61738550000000049454e44ae426082"
)
"""A PNG of one black pixel."""


class Step(BaseModel):
    """Options of a step. Subclasses say what it takes and gives, and make it ready."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    package: ClassVar[str] = ""
    """The module that it needs beside Hone's own."""
    file_fields: ClassVar[tuple[str, ...]] = ()
    """Options that name a file, which goes into the artifact."""

    def takes(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        """Return what must be there.

        Args:
            known: what steps before it give; of steps behind a model its outputs, too.
            wanted: the model's inputs; of steps behind a model nothing.

        Raises:
            StepError: what is there is not what it can work on.
        """
        raise NotImplementedError

    def gives(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        """Return what is there after it; `known` holds what it takes. Raises StepError when that doesn't fit."""
        raise NotImplementedError

    def drops(self) -> tuple[str, ...]:
        """Return what isn't there after it any more."""
        return ()

    def bind(self, folder: Path, known: Specs) -> Run:
        """Return what runs it.

        Args:
            folder: that its files are named from.
            known: what it takes, and what it gives.

        Raises:
            StepError: its file can't be used.
            UnavailableError: this host lacks a library.
        """
        raise NotImplementedError


def number_dtype(wanted: Specs, name: str, kinds: str, default: str) -> str:
    """Return the dtype that a model wants of a column where it is one of these kinds of NumPy, else the default."""
    spec = wanted.get(name)
    return spec.dtype if spec is not None and spec.dtype in DTYPES and spec.numpy_dtype.kind in kinds else default


def column(known: Specs, name: str) -> ColumnSpec:
    """Return what is known under a name; raises StepError when there is nothing."""
    if name not in known:
        raise StepError(f"there is no '{name}' to work on{did_you_mean(name, known)}")
    return known[name]


def located(folder: Path, name: str) -> Path:
    """Return the file that a step names: in a folder, or, as `package:path`, in an installed package, which isn't
    imported.

    Raises:
        StepError: there is no such package.
    """
    package, _, rest = name.rpartition(":")
    if not package:
        return folder / name
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or spec.origin is None:
        raise StepError(f"'{name}' is in the package {package}, which is not installed")
    return Path(spec.origin).parent / rest


def read_names(path: Path) -> list[str]:
    """Return the names in a file: a JSON list, or one a line.

    Raises:
        StepError: it can't be read, is empty, or has a name twice.
    """
    import json

    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if path.suffix == ".json" else text.splitlines()
    except (OSError, ValueError) as error:
        raise StepError(f"{path.name}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise StepError(f"{path.name}: give a JSON list of names, or one name a line")
    return names
