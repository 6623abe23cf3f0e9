"""Who may call what: API keys and JSON Web Tokens with their scopes, and a rate limit a caller."""

from __future__ import annotations

import logging
from pathlib import Path

from hone.errors import HoneError

from ..settings import Settings
from .api_keys import KeyFile
from .callers import Action, Caller, ForbiddenError, UnauthorizedError, allows
from .rates import RateLimiter, RateTable
from .redis_rates import SharedRates
from .tokens import JwtVerifier, check_jwks

logger = logging.getLogger("hone.serving")

ANYBODY = Caller("anybody", frozenset())
"""Everybody together, where no keys are asked for."""


class Gate:
    """Decides about each request; a known key or token costs microseconds.

    Args:
        keys: None: no API keys.
        tokens: None: no JSON Web Tokens.
        limiter: None: no rate limits.
    """

    def __init__(self, keys: KeyFile | None, tokens: JwtVerifier | None, limiter: RateLimiter | None = None) -> None:
        self._keys = keys
        self._tokens = tokens
        self._limiter = limiter

    @property
    def stale(self) -> bool:
        """True while the keys in use aren't those of the key file, which is looked at."""
        if self._keys is None:
            return False
        self._keys.follow()
        return self._keys.stale

    def admit_now(self, authorization: bytes, api_key: bytes, action: Action, model: str | None = "") -> Caller | None:
        """Return who calls when that shows without waiting, else None: ask `admit`.

        Raises:
            ForbiddenError, RateLimitedError: they may not.
        """
        presented = api_key or _bearer(authorization)
        if not presented:
            return None
        caller = self._known(presented)
        if caller is None:
            return None
        _check_scope(caller, action, model)
        return caller if self._limiter is None or self._limiter.take_now(caller) else None

    async def admit(self, authorization: bytes, api_key: bytes, action: Action, model: str | None = "") -> Caller:
        """Return who calls.

        Args:
            action: what they want.
            model: that it concerns, if one; None where that isn't known yet: `permit` decides then.

        Raises:
            UnauthorizedError, ForbiddenError, RateLimitedError: they may not.
        """
        presented = api_key or _bearer(authorization)
        if not presented:
            raise UnauthorizedError("a key is needed: send 'x-api-key: KEY' or 'authorization: Bearer KEY'")
        caller = self._known(presented)
        if caller is None:
            if self._tokens is None or presented.count(b".") != 2:
                raise UnauthorizedError("the key is not known")
            caller = await self._tokens.check(presented)
        _check_scope(caller, action, model)
        if self._limiter is not None:
            await self._limiter.take(caller)
        return caller

    def permit(self, authorization: bytes, api_key: bytes, action: Action, model: str) -> None:
        """Check that a caller who was admitted before the model was known may do it to this model.

        Raises:
            UnauthorizedError, ForbiddenError: they may not.
        """
        caller = self._known(api_key or _bearer(authorization))
        if caller is None:
            raise UnauthorizedError("the key is not known any more")
        _check_scope(caller, action, model)

    def _known(self, presented: bytes) -> Caller | None:
        caller = self._keys.find(presented) if self._keys is not None else None
        if caller is None and self._tokens is not None:
            return self._tokens.remembered(presented)
        return caller

    async def close(self) -> None:
        if self._limiter is not None:
            await self._limiter.close()


class OpenGate:
    """Lets everybody pass, as often as the rate limit allows; nobody is known.

    Args:
        limiter: its default is the limit of all callers together.
    """

    stale = False

    def __init__(self, limiter: RateLimiter) -> None:
        self._limiter = limiter

    def admit_now(self, authorization: bytes, api_key: bytes, action: Action, model: str | None = "") -> None:
        return None

    async def admit(self, authorization: bytes, api_key: bytes, action: Action, model: str | None = "") -> None:
        """Count a request.

        Raises:
            RateLimitedError: the limit is used up.
        """
        if not self._limiter.take_now(ANYBODY):
            await self._limiter.take(ANYBODY)

    def permit(self, authorization: bytes, api_key: bytes, action: Action, model: str) -> None:
        return None

    async def close(self) -> None:
        await self._limiter.close()


def make_gate(settings: Settings, folder: Path) -> Gate | OpenGate | None:
    """Return the gate that the settings describe; None lets everybody pass.

    Args:
        folder: that the workers of this server share.

    Raises:
        HoneError: the key file is broken, or a library is missing.
    """
    if not settings.secured and not settings.rate_per_s:
        return None
    shared = SharedRates(settings.redis_url) if settings.redis_url else None
    try:
        table = RateTable(folder / "rates")
    except HoneError as error:
        logger.error("%s; each worker counts by itself", error)
        table = RateTable()
    limiter = RateLimiter(table, settings.rate_per_s or None, shared)
    if not settings.secured:
        return OpenGate(limiter)
    keys = KeyFile(Path(settings.api_keys)) if settings.api_keys else None
    tokens = None
    if settings.jwt_jwks:
        check_jwks(settings.jwt_jwks)
        tokens = JwtVerifier(settings.jwt_jwks, settings.jwt_issuer, settings.jwt_audience)
    return Gate(keys, tokens, limiter)


def _check_scope(caller: Caller, action: Action, model: str | None) -> None:
    if action in caller.scopes or allows(caller.scopes, action, model):
        return
    needed = {"list": "read"}.get(action, action)
    of_model = f" or '{needed}:{model}'" if model else ""
    has = ", ".join(sorted(caller.scopes)) or "none"
    raise ForbiddenError(f"this needs the scope '{needed}'{of_model}, the key has {has}")


def _bearer(authorization: bytes) -> bytes:
    scheme, _, value = authorization.partition(b" ")
    return value.strip() if scheme.lower() == b"bearer" else b""
