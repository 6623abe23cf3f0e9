"""The weights of a split, in memory that all workers of a server share: a change is there for all at one moment.

The file holds two sets of weights and which of them counts. A new set is written where none counts, and then counts:
that is one number of eight bytes, which a reader sees before the change or after.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from pathlib import Path

from hone.files import atomic_write

DOUBLE = 8


class Table:
    """Weights of a split's arms.

    Args:
        file: made when it is missing, by the worker that is first.
        weights: percent, that it is made with.
    """

    def __init__(self, file: Path, weights: Sequence[float]) -> None:
        self._count = len(weights)
        if not file.exists():
            content = struct.pack(f"{1 + 2 * self._count}d", 0.0, *weights, *weights)
            whole = file.with_name(f".{file.name}.{os.getpid()}")
            atomic_write(whole, content, mode=0o600, durable=False)
            try:
                os.link(whole, file)
            except FileExistsError:
                pass  # another worker was first, and its weights may have changed since
            finally:
                whole.unlink(missing_ok=True)
        with file.open("r+b") as stream:
            self._memory = mmap.mmap(stream.fileno(), (1 + 2 * self._count) * DOUBLE)
        self._numbers = numbers = memoryview(self._memory).cast("d")
        self._sets = (numbers[1 : 1 + self._count], numbers[1 + self._count :])

    def read(self) -> Sequence[float]:
        """Return the weights in force, as numbers of the shared memory."""
        return self._sets[1 if self._numbers[0] else 0]

    def write(self, weights: Sequence[float]) -> None:
        """Put other weights in force, in every worker."""
        free = 0 if self._numbers[0] else 1
        for place, weight in enumerate(weights):
            self._sets[free][place] = weight
        self._numbers[0] = float(free)
