"""JSON Web Tokens, checked against a JWKS."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
import time
import urllib.request
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from services.callers import SCOPES, Caller, UnauthorizedError

logger = logging.getLogger("hone.serving")

ALGORITHMS = ["RS256", "ES256", "EdDSA"]
LEEWAY_S = 30
TOKEN_CACHE_S = 60.0
JWKS_TTL_S = 300.0
JWKS_RETRY_S = 30.0
FETCH_TIMEOUT_S = 5.0
MAX_REMEMBERED = 10_000


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
        except jwt.PyJWTError as error:
            raise UnauthorizedError(f"the token is not valid: {str(error).splitlines()[0].lower()}") from None
        return self._remember(token, claims)

    def _remember(self, token: bytes, claims: dict[str, Any]) -> Caller:
        granted = claims.get("scope", claims.get("scp", ""))
        names = granted.split() if isinstance(granted, str) else [str(name) for name in granted]
        caller = Caller(f"jwt:{claims['sub']}", frozenset(names) & frozenset(SCOPES))
        left = float(claims["exp"]) + LEEWAY_S - time.time()
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
        import jwt

        try:
            content = await asyncio.to_thread(_read_jwks, self._jwks)
            found = {key.key_id or "": key.key for key in jwt.PyJWKSet.from_dict(orjson.loads(content)).keys}
        except (OSError, ValueError, jwt.PyJWTError) as error:
            logger.error("the JWKS can't be read, the old keys stay in use: %s", error)
            return
        self._keys = found


def _read_jwks(source: str) -> bytes:
    if "://" not in source:
        return Path(source).read_bytes()
    if not source.startswith(("https://", "http://")):
        raise ValueError(f"a JWKS comes from a file or over HTTP, not from {source.partition(':')[0]}")
    with urllib.request.urlopen(source, timeout=FETCH_TIMEOUT_S) as answer:  # checked above  # nosec B310
        return bytes(answer.read(1_000_000))
