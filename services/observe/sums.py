"""What workers of a server add up each by themselves, and read of each other: a file each in a folder they share."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from hone.files import atomic_write

logger = logging.getLogger("hone.serving")


class SharedSums:
    """Sums of this worker, for the others, and theirs; a worker that died leaves its own behind.

    Args:
        folder: that the workers of the server share; None: there is one worker.
        kind: what the files are called.
    """

    def __init__(self, folder: Path | None, kind: str) -> None:
        self._folder = folder
        self._kind = kind
        self._file = f"{kind}-{os.getpid()}-{secrets.token_hex(4)}.json"
        self._complained = False

    @property
    def shared(self) -> bool:
        return self._folder is not None

    def others(self) -> Iterator[Any]:
        """Yield what each other worker has published last."""
        files = [] if self._folder is None else sorted(self._folder.glob(f"{self._kind}-*.json"))
        for file in files:
            if file.name != self._file:
                yield orjson.loads(file.read_bytes())

    def publish(self, content: Any) -> bool:
        """Write this worker's sums; return whether that worked. It is told once when it doesn't."""
        if self._folder is None:
            return False
        try:
            # Several times a second: that it outlives a crash of the machine is not worth waiting for the disk.
            atomic_write(
                self._folder / self._file, orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS), durable=False
            )
        except OSError as error:
            if not self._complained:
                logger.warning("other workers don't see this one's %s: %s", self._kind, error)
            self._complained = True
            return False
        return True
