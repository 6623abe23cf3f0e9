"""What whoever started a sender tells it on its standard input: `start AT`, `users N` and `stop`, a line each."""

from __future__ import annotations

import os

READ_BYTES = 4096


class Commands:
    """Commands as they come in, which never waits for one.

    Args:
        descriptor: that they are read from.
    """

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._begun = b""
        self.ended = False
        """Nothing more comes: whoever started the sender is gone."""

    def read(self) -> list[tuple[str, str]]:
        """Return the commands that are there, each with its value; the last one is `stop` when no more can come."""
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return []
        self.ended = not data
        *lines, self._begun = (self._begun + (data or b"\nstop\n")).split(b"\n")
        parts = (line.decode().partition(" ") for line in lines)
        return [(word, value) for word, _, value in parts]
