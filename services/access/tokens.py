"""JSON Web Tokens, checked against a JWKS."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import logging
import math
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from hone.errors import HoneError, one_line

from .callers import Caller, UnauthorizedError, is_scope

logger = logging.getLogger("hone.serving")

ALGORITHMS = ["RS256", "ES256", "EdDSA"]
LEEWAY_S = 30
TOKEN_CACHE_S = 60.0
JWKS_TTL_S = 300.0
JWKS_RETRY_S = 30.0
FETCH_TIMEOUT_S = 5.0
MAX_REMEMBERED = 10_000
LAST_SECOND = 1 << 40
"""An expiry past it (the year 36812) is no time."""


class JwtVerifier:
    """Checks JSON Web Tokens (RFC 7519) against a JWKS: signature, issuer, audience, expiry.

    Args:
        jwks: URL or path of the key set.
        issuer, audience: that a token must carry.
        clock: seconds.
    """

    def __init__(self, jwks: str, issuer: str, audience: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._jwks = jwks
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._keys: dict[str, Any] = {}
        self._fetched = -math.inf
        self._known: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._lock = asyncio.Lock()

    def remembered(self, token: bytes) -> Caller | None:
        """Return whose token this is when it was checked within the last minute and hasn't expired."""
        known = self._known.get(hashlib.sha256(token).digest())
        return known[1] if known is not None and known[0] > self._clock() else None

    async def check(self, token: bytes) -> Caller:
        """Return whose token this is.

        Raises:
            UnauthorizedError: it is not valid here, or the keys that would tell can't be had.
        """
        import jwt

        try:
            kid = str(jwt.get_unverified_header(token).get("kid", ""))
            claims = jwt.decode(
                token,
                await self._key(kid),
                algorithms=ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "sub"]},
            )
            caller, expires = caller_of(claims)
        except (jwt.PyJWTError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
            # PyJWT lets the errors of odd claims through, such as an expiry that no float holds.
            raise UnauthorizedError(f"the token is not valid: {one_line(error).lower()}") from None
        left = expires + LEEWAY_S - time.time()
        self._known[hashlib.sha256(token).digest()] = (self._clock() + min(TOKEN_CACHE_S, left), caller)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return caller

    async def _key(self, kid: str) -> Any:
        async with self._lock:
            age = self._clock() - self._fetched
            if age > JWKS_TTL_S or (kid not in self._keys and age > JWKS_RETRY_S):
                self._fetched = self._clock()
                await self._fetch()
        if kid not in self._keys:
            raise UnauthorizedError("the token is signed with a key that the JWKS doesn't have")
        return self._keys[kid]

    async def _fetch(self) -> None:
        try:
            self._keys = await asyncio.to_thread(read_jwks, self._jwks)
        except HoneError as error:
            logger.error("the old keys for tokens stay in use: %s", error)


def caller_of(claims: Mapping[str, Any]) -> tuple[Caller, float]:
    """Return who a token stands for and when it expires (seconds since 1970), from claims whose signature holds.

    Scopes are in `scope`, words of one text (RFC 8693), or in `scp`, a text or a list of texts; others are passed over.

    Raises:
        TypeError, ValueError: a claim is of the wrong kind.
    """
    subject, expires = claims["sub"], claims["exp"]
    if not isinstance(subject, str) or not subject:
        raise TypeError("the subject is not a text")
    if isinstance(expires, bool) or not isinstance(expires, int | float) or not 0 < expires < LAST_SECOND:
        raise ValueError("the expiry is not a time")
    granted = claims.get("scope", claims.get("scp", ""))
    names = granted.split() if isinstance(granted, str) else granted
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("the scope is neither a text nor a list of texts")
    return Caller(f"jwt:{subject}", frozenset(name for name in names if is_scope(name))), float(expires)


def read_jwks(source: str) -> dict[str, Any]:
    """Return the keys of a key set by their id.

    Args:
        source: path or URL.

    Raises:
        HoneError: it can't be had, or holds no key that Hone can use.
    """
    import jwt

    try:
        content = orjson.loads(_read(source))
        if not isinstance(content, dict):
            raise TypeError("not an object")
        return {str(key.key_id or ""): key.key for key in jwt.PyJWKSet.from_dict(content).keys}
    except (OSError, http.client.HTTPException) as error:
        raise HoneError(f"{source}: can't be read: {getattr(error, 'strerror', None) or one_line(error)}") from None
    except (ValueError, TypeError, AttributeError, jwt.PyJWTError) as error:
        raise HoneError(f"{source}: no key set: {one_line(error)}") from None


def check_jwks(source: str) -> None:
    """Raise HoneError when tokens can never be checked: no PyJWT, or a key file that is missing or broken.

    A URL isn't asked: its server may come up after this one.
    """
    try:
        import jwt  # noqa: F401
    except ImportError:
        raise HoneError("HONE_JWT_JWKS needs PyJWT; pip install 'hone[ops]'") from None
    if not _is_url(source):
        read_jwks(source)


def _is_url(source: str) -> bool:
    """Return whether a key set is at a URL, not in a file.

    Raises:
        HoneError: it is at a URL that isn't HTTP's.
    """
    scheme, there, _ = source.partition("://")
    if there and scheme not in ("https", "http"):
        raise HoneError(f"HONE_JWT_JWKS is a file or https://, not {scheme}://")
    return bool(there)


def _read(source: str) -> bytes:
    if not _is_url(source):
        return Path(source).read_bytes()
    with urllib.request.urlopen(source, timeout=FETCH_TIMEOUT_S) as answer:  # HTTP only  # nosec B310
        return bytes(answer.read(1_000_000))
