"""Callers, their scopes, and the refusals they can get.

A scope is `read`, `predict`, `feedback`, `operate` or `admin`, or one of them for one model, `predict:NAME`. What each
allows:

    read      read what is told of a model; without a name list what is stored, too
    predict   infer, and read what is told of a model
    feedback  say later what would have been right: labels and figures
    operate   load and unload, split requests, and what `read` lets
    admin     what `operate` lets: there is no more to do over HTTP
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Literal

from ..http.failures import RequestError

Action = Literal["predict", "feedback", "operate", "read", "list"]
"""What a request wants: infer, say what would have been right, to change what is loaded, to read about a model, or
to list what is stored."""

SCOPE = re.compile(r"(?:read|predict|feedback|operate|admin)(?::[A-Za-z0-9][A-Za-z0-9._-]*)?")
IMPLIED: dict[str, tuple[str, ...]] = {
    "predict": ("predict",),
    "feedback": ("feedback",),
    "operate": ("operate", "admin"),
    "read": ("read", "predict", "operate", "admin"),
    "list": ("read", "operate", "admin"),
}
"""Scopes of which any lets a caller do an action."""


def is_scope(text: str) -> bool:
    """Return whether this is a scope that a key or token can have."""
    return SCOPE.fullmatch(text) is not None


def check_scope(scope: str) -> None:
    """Raise ValueError unless this is a scope."""
    if not is_scope(scope):
        raise ValueError(
            f"'{scope}' is no scope; there is read, predict, feedback, operate and admin, and with a model predict:NAME"
        )


def allows(scopes: frozenset[str], action: Action, model: str | None = "") -> bool:
    """Return whether scopes let a caller do something.

    Args:
        scopes: of the caller.
        action: what they want.
        model: that it concerns; "": none in particular; None: one that isn't known yet, for which a scope for any will
            do.
    """
    for scope in IMPLIED[action]:
        if scope in scopes:
            return True
        if model is None and any(held.startswith(f"{scope}:") for held in scopes):
            return True
        if model and f"{scope}:{model}" in scopes:
            return True
    return False


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
