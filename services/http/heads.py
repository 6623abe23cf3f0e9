"""What a request's head may be: how long, how many headers, and read the same way by every server and proxy."""

from __future__ import annotations

import re
from http import HTTPStatus

from .responses import error_body

MAX_HEADERS = 100
MAX_TARGET = 8192
"""Bytes of the path with its query."""

TOO_LONG = (414, f"the path is over {MAX_TARGET} bytes")

PROBES = frozenset(b"/" + path for path in (b"livez", b"readyz", b"healthz", b"v2/health/live", b"v2/health/ready"))
"""Asked whether a worker lives and is ready; answered when it takes no more connections."""

COUNTED = frozenset({b"host", b"transfer-encoding", b"expect"})
"""Headers that change how a request is read."""

OFFERED_WITHIN = 2048
"""Bytes of a request in which an offer of HTTP/2 is looked for."""

_OFFER = re.compile(rb"(?i)(?<=\r\n)upgrade(?=:[ \t]*h2c\b)")
_DECLINED = b"-pgrade"
"""Takes the place of an offered `upgrade`, with as many bytes."""


def without_offer(data: bytes) -> bytes:
    """Decline HTTP/2 that a request's head offers: by going on as if it weren't there, as RFC 9110, 7.8 allows.

    Java's HTTP client offers it on each connection without TLS. The parser takes a request that offers another
    protocol for one without a body.
    """
    head, end, rest = data.partition(b"\r\n\r\n")
    return _OFFER.sub(_DECLINED, head) + end + rest


def head_problem(spoken: str, hosts: int, coded: bool, target: int) -> tuple[int, str] | None:
    """Return status and message for a head whose path is too long, or that servers and proxies read in different ways:
    that is how requests are smuggled. None for one that is in order.

    Args:
        spoken: version of HTTP.
        hosts: headers of this name.
        coded: there is a transfer-encoding.
        target: bytes of its path.
    """
    if target > MAX_TARGET:
        return TOO_LONG
    if spoken not in ("1.1", "1.0"):
        return 400, f"HTTP/{spoken} is not spoken here"
    if hosts > 1 or (not hosts and spoken == "1.1"):
        return 400, f"there must be one Host header, {hosts} came"
    if coded and spoken == "1.0":
        return 400, "HTTP/1.0 has no transfer-encoding"
    return None


def too_large(target: int, most: int) -> tuple[int, str]:
    """Return status and message for a head that is over its limit.

    Args:
        target: bytes of its path.
        most: bytes that a head may have.
    """
    if target > MAX_TARGET:
        return TOO_LONG
    return 431, f"the headers are over {most / 1e3:g} kB"


def refusal(status: int, text: str) -> bytes:
    """Return a whole answer, for a request that no application gets to see; the connection ends behind it."""
    body = error_body(text)
    head = (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-content-type-options: nosniff\r\nconnection: close\r\n"
    )
    if status == 503:
        head += "retry-after: 1\r\n"
    return head.encode() + b"\r\n" + body
