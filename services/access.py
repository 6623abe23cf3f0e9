"""Who may call what: API keys and JSON Web Tokens with the scopes predict and admin, and a rate limit a caller."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from hone.errors import HoneError
from services.api_keys import KeyFile
from services.callers import Caller, ForbiddenError, RateLimitedError, Scope, UnauthorizedError
from services.settings import Settings
from services.tokens import JwtVerifier

MAX_REMEMBERED = 10_000


class RateLimiter:
    """A token bucket for each caller: `rate_per_s` on average, as many at once.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, caller: Caller) -> None:
        """Count a request.

        Raises:
            RateLimitedError: the caller has used its rate up.
        """
        rate = caller.rate_per_s
        if rate is None:
            return
        now = self._clock()
        tokens, then = self._buckets.get(caller.id, (max(1.0, rate), now))
        tokens = min(max(1.0, rate), tokens + (now - then) * rate)
        if tokens < 1.0:
            self._buckets[caller.id] = (tokens, now)
            raise RateLimitedError(f"over the limit of {rate:g} requests a second", (1.0 - tokens) / rate)
        self._buckets[caller.id] = (tokens - 1.0, now)
        if len(self._buckets) > MAX_REMEMBERED:
            self._buckets.popitem(last=False)


class Gate:
    """Decides about each request; a known key or token costs microseconds.

    Args:
        keys: None: no API keys.
        tokens: None: no JSON Web Tokens.
        clock: seconds, for the rate limit.
    """

    def __init__(
        self, keys: KeyFile | None, tokens: JwtVerifier | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._keys = keys
        self._tokens = tokens
        self._limiter = RateLimiter(clock)

    def admit_now(self, authorization: bytes, api_key: bytes, scope: Scope) -> Caller | None:
        """Return who calls when that shows without waiting, else None: ask `admit`.

        Raises:
            ForbiddenError, RateLimitedError: they may not.
        """
        presented = api_key or _bearer(authorization)
        if not presented:
            return None
        caller = self._keys.find(presented) if self._keys is not None else None
        if caller is None and self._tokens is not None:
            caller = self._tokens.remembered(presented)
        return None if caller is None else self._allow(caller, scope)

    async def admit(self, authorization: bytes, api_key: bytes, scope: Scope) -> Caller:
        """Return who calls.

        Raises:
            UnauthorizedError, ForbiddenError, RateLimitedError: they may not.
        """
        caller = self.admit_now(authorization, api_key, scope)
        if caller is not None:
            return caller
        presented = api_key or _bearer(authorization)
        if not presented:
            raise UnauthorizedError("a key is needed: send 'x-api-key: KEY' or 'authorization: Bearer KEY'")
        if self._tokens is not None and presented.count(b".") == 2:
            return self._allow(await self._tokens.check(presented), scope)
        raise UnauthorizedError("the key is not known")

    def _allow(self, caller: Caller, scope: Scope) -> Caller:
        if scope not in caller.scopes:
            raise ForbiddenError(
                f"this needs the scope '{scope}', the key has {', '.join(sorted(caller.scopes)) or 'none'}"
            )
        self._limiter.take(caller)
        return caller


def make_gate(settings: Settings) -> Gate:
    """Return the gate that the settings describe.

    Raises:
        HoneError: the key file is broken, or PyJWT is missing.
    """
    keys = KeyFile(Path(settings.api_keys)) if settings.api_keys else None
    tokens = None
    if settings.jwt_jwks:
        try:
            import jwt  # noqa: F401
        except ImportError:
            raise HoneError("HONE_JWT_JWKS needs PyJWT; install the [ops] extra") from None
        tokens = JwtVerifier(settings.jwt_jwks, settings.jwt_issuer, settings.jwt_audience)
    return Gate(keys, tokens)


def _bearer(authorization: bytes) -> bytes:
    scheme, _, value = authorization.partition(b" ")
    return value.strip() if scheme.lower() == b"bearer" else b""
