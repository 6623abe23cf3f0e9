"""Callers, their scopes, and the refusals they can get."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Literal

from services.failures import RequestError

Scope = Literal["predict", "admin"]
SCOPES = ("predict", "admin")


class UnauthorizedError(RequestError):
    status = 401

    def __init__(self, message: str) -> None:
        super().__init__(message, (("www-authenticate", "Bearer"),))


class ForbiddenError(RequestError):
    status = 403


class RateLimitedError(RequestError):
    status = 429

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message, (("retry-after", str(max(1, math.ceil(retry_after_s)))),))


@dataclass(frozen=True)
class Caller:
    """Somebody who showed a key or a token.

    Attributes:
        id: of the key, or the token's subject; for the audit log and the rate limit, never for other logs.
        scopes: what they may do.
        rate_per_s: requests a second; None: no limit.
    """

    id: str
    scopes: frozenset[str]
    rate_per_s: float | None = None


def key_hash(key: bytes) -> str:
    """Return what is kept of a key."""
    return hashlib.sha256(key).hexdigest()
