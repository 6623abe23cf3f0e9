"""Asks a service over HTTP, one address or every one that its name has."""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from hone.certificates import trusting
from hone.errors import HoneError, one_line

TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Access:
    """What a service asks of its callers.

    Attributes:
        api_key: empty: none is sent.
        ca: file of certificates that the service's is checked with; None: those that Python knows.
    """

    api_key: str = ""
    ca: Path | None = None

    def context(self) -> ssl.SSLContext:
        """Return what TLS connections are made with; raises HoneError when the file holds no certificates."""
        return trusting(self.ca)


def get(url: str, path: str, access: Access) -> tuple[int, bytes]:
    """Return status and body of an answer; raises OSError when there is none."""
    return ask("GET", url, path, access)


def ask(
    method: str, url: str, path: str, access: Access, body: bytes = b"", timeout_s: float = TIMEOUT_S
) -> tuple[int, bytes]:
    """Return status and body of an answer to any method; raises OSError when there is none."""
    place = urlsplit(url)
    connection: http.client.HTTPConnection
    if place.scheme == "https":
        connection = http.client.HTTPSConnection(
            place.hostname or "", place.port, timeout=timeout_s, context=access.context()
        )
    else:
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout_s)
    try:
        headers = {"x-api-key": access.api_key} if access.api_key else {}
        connection.request(method, place.path.rstrip("/") + path, body=body or None, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except http.client.HTTPException as error:
        raise OSError(f"no HTTP: {one_line(error)}") from None
    finally:
        connection.close()


def check_address(url: str) -> str:
    """Return a service's address without a slash at its end; raises HoneError when it is none."""
    place = urlsplit(url)
    if place.scheme not in ("http", "https") or not place.hostname:
        raise HoneError(f"'{url}' is no address of a service; give one such as http://127.0.0.1:3000")
    return url.rstrip("/")


def each_address(url: str) -> list[str]:
    """Return a URL for every address that the name has: the pods behind a headless service.

    Raises:
        HoneError: it has none, or a certificate would have to be for an address.
    """
    place = urlsplit(url)
    if place.scheme == "https":
        raise HoneError("--each: certificates are for names; ask the pods by http, inside the cluster")
    try:
        found = socket.getaddrinfo(place.hostname, place.port or 80, type=socket.SOCK_STREAM)
    except OSError as error:
        raise HoneError(f"{url}: no pod is there: {error.strerror or error}") from None
    hosts = sorted({str(entry[4][0]) for entry in found})
    return [f"http://{f'[{host}]' if ':' in host else host}:{place.port or 80}{place.path}" for host in hosts]


def certificate_days(url: str, access: Access) -> float:
    """Return for how many days a service's certificate is still valid; raises OSError when it can't be had."""
    place = urlsplit(url)
    with (
        socket.create_connection((place.hostname, place.port or 443), TIMEOUT_S) as connection,
        access.context().wrap_socket(connection, server_hostname=place.hostname) as secured,
    ):
        certificate = secured.getpeercert() or {}
    return (ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) / 86_400
