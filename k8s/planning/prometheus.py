"""Asking a Prometheus: as whom, over what, and its answers checked."""

from __future__ import annotations

import http.client
import json
import os
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from hone.certificates import trusting
from hone.errors import HoneError, one_line, shorten

AUTH_VARIABLE = "HONE_PROMETHEUS_AUTH"
TIMEOUT_S = 30.0
MOST_BYTES = 64_000_000
_NO_PROMETHEUS = "doesn't answer as Prometheus does; give the address of its API"


@dataclass(frozen=True)
class Access:
    """What a Prometheus asks of its callers.

    Attributes:
        auth: NAME:PASSWORD, or a bearer token, which has no colon (RFC 6750); empty: neither.
        ca: file of certificates that its own is checked with; None: those that Python knows.
    """

    auth: str = field(default="", repr=False)
    ca: Path | None = None

    @classmethod
    def of(cls, auth_file: Path | None, ca: Path | None) -> Access:
        """Return what a file holds, or without one the variable HONE_PROMETHEUS_AUTH.

        Raises:
            HoneError: the file can't be read, or what is in it, or in the variable, can't be sent.
        """
        place = AUTH_VARIABLE if auth_file is None else f"--auth-file {auth_file}"
        try:
            text = os.environ.get(AUTH_VARIABLE, "") if auth_file is None else auth_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise HoneError(f"{place}: {getattr(error, 'strerror', None) or one_line(error)}") from None
        auth = text.strip()
        sendable = auth.isprintable() and (":" in auth or (auth.isascii() and " " not in auth))
        if not sendable or (auth_file is not None and not auth):
            raise HoneError(f"{place}: it has to be one line: NAME:PASSWORD, or a token")
        return cls(auth, ca)

    @property
    def header(self) -> str:
        """The value of the header Authorization; empty: none is sent."""
        if ":" in self.auth:
            return f"Basic {b64encode(self.auth.encode()).decode()}"
        return f"Bearer {self.auth}" if self.auth else ""


ANYBODY = Access()


def series_of(url: str, path: str, question: Mapping[str, Any], access: Access) -> list[Any]:
    """Return the series that a Prometheus answers with.

    Args:
        url: of its HTTP API, without a path or with the prefix that it is served under.
        path: of the question, such as /api/v1/query_range.
        question: its parameters.
        access: to it.

    Raises:
        HoneError: it doesn't answer, lets this caller not in, or refuses the question.
    """
    place = urlsplit(url)
    if place.scheme not in ("http", "https"):
        raise HoneError(f"--prometheus: '{url}' is no address; give one such as http://127.0.0.1:9090")
    if "@" in place.netloc:
        raise HoneError(f"--prometheus: leave the password out of the address; {AUTH_VARIABLE} or --auth-file has it")
    request = urllib.request.Request(f"{url.rstrip('/')}{path}?{urlencode(question)}")
    if access.header:
        request.add_unredirected_header("Authorization", access.header)  # another host isn't told
    answer = _asked(request, url, access)
    if not isinstance(answer, dict) or answer.get("status") not in ("success", "error"):
        raise HoneError(f"{url}: {_NO_PROMETHEUS}")
    if answer["status"] == "error":
        raise HoneError(f"{url}: refuses the query: {shorten(' '.join(str(answer.get('error')).split()), 200)}")
    found: list[Any] = (answer.get("data") or {}).get("result") or []
    return found


def _asked(request: urllib.request.Request, url: str, access: Access) -> Any:
    context = trusting(access.ca) if url.startswith("https") else None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as answer:  # HTTP only  # nosec B310
            body = answer.read(MOST_BYTES)
    except urllib.error.HTTPError as error:
        body = error.read(MOST_BYTES)
        if error.code in (401, 403):
            raise HoneError(f"{url}: answers {error.code}: {_who(access)}") from None
        if not body.startswith(b"{"):
            raise HoneError(
                f"{url}: answers {error.code}, not as Prometheus does; give the address of its API"
            ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        why = f"no answer in {TIMEOUT_S:g} s" if isinstance(reason, TimeoutError) else one_line(reason)
        raise HoneError(f"{url}: {why}; is Prometheus there, and reachable from here?") from None
    try:
        return json.loads(body)
    except ValueError:
        raise HoneError(f"{url}: {_NO_PROMETHEUS}") from None


def _who(access: Access) -> str:
    if access.auth:
        return "it refuses the name and password" if ":" in access.auth else "it refuses the token"
    return f"it asks who calls; {AUTH_VARIABLE} or --auth-file says NAME:PASSWORD, or a token"
