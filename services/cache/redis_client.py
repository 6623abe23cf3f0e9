"""The way to Redis, for predictions and for rates. It may be slow or dead at any time; serving must not notice."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from hone.errors import HoneError

logger = logging.getLogger("hone.serving")

PREFIX = b"hone:1:"
"""Of every key, with the number of the layout of what is kept."""

FAILURES = 3
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0


class Breaker:
    """Keeps callers away from something that fails: after `FAILURES` in a row for a second, then for twice as long
    after each trial that fails too.

    Args:
        clock: seconds.
        what: it is, for the log.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, what: str = "the shared cache") -> None:
        self._clock = clock
        self._what = what
        self._failures = 0
        self._pause_s = FIRST_PAUSE_S
        self._until = 0.0
        self._trying = False

    @property
    def open(self) -> bool:
        return self._failures >= FAILURES

    def allows(self) -> bool:
        """Return whether to try; while open, once after each pause."""
        if not self.open:
            return True
        if self._trying or self._clock() < self._until:
            return False
        self._trying = True
        return True

    def succeeded(self) -> None:
        if self.open:
            logger.info("%s answers again", self._what)
        self._failures, self._pause_s, self._trying = 0, FIRST_PAUSE_S, False

    def failed(self, problem: str) -> None:
        self._failures += 1
        if self._failures == FAILURES:
            logger.warning("%s is left alone for now: %s", self._what, problem)
        elif self._trying:
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)
        if self.open:
            self._until = self._clock() + self._pause_s
        self._trying = False


def connect(url: str, timeout_s: float) -> Any:
    """Return a client of Redis, which connects when it is first used.

    Args:
        url: redis:// or rediss://; a password in it is never logged.
        timeout_s: of an answer.

    Raises:
        HoneError: the client isn't installed, or the URL is wrong.
    """
    try:
        from redis import asyncio as redis
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise HoneError("HONE_REDIS_URL needs the Redis client; pip install 'hone[ops]'") from None
    try:
        return redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s * 5, retry=Retry(NoBackoff(), 0)
        )
    except ValueError:
        raise HoneError("HONE_REDIS_URL must be redis://[:PASSWORD@]HOST:PORT/DB, or rediss:// for TLS") from None


def error_name(error: Exception) -> str:
    """Name an error without its text, in which a URL with a password could stand."""
    return type(error).__name__
