"""One HTTP/1.1 connection that never waits: opened, written to and read in as many steps as the network asks for."""

from __future__ import annotations

import errno
import os
import socket
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hone.errors import HoneError

from ..target import Access

READ, WRITE = 1, 4
"""Of select.epoll: EPOLLIN and EPOLLOUT."""

CHUNK = 65536
FRESH_S = 0.1
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


class BadAnswerError(Exception):
    """What came is not HTTP, or not of a kind that this reads."""


@dataclass(frozen=True)
class Endpoint:
    """Where connections go: resolved once, so that no name server is part of a latency."""

    family: int
    address: Any
    host: str
    context: ssl.SSLContext | None

    @classmethod
    def of(cls, url: str, access: Access) -> Endpoint:
        """Resolve the address of a service.

        Raises:
            HoneError: there is no such host, or the file of certificates holds none.
        """
        place = urlsplit(url)
        host, secure = place.hostname or "", place.scheme == "https"
        try:
            found = socket.getaddrinfo(host, place.port or (443 if secure else 80), type=socket.SOCK_STREAM)
        except OSError as error:
            raise HoneError(f"{url}: no such host: {error.strerror or error}") from None
        # A service on this machine listens on IPv4; localhost may be both.
        family, _, _, _, address = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0]
        return cls(family, address, host, access.context() if secure else None)


class Connection:
    """A connection, and the request that it carries.

    Attributes:
        call, intended, started: of the request; set by the sender.
        busy: a request waits for its answer.
        head: of the last answer, without the empty line.
        body: of the last answer.
        closing: the server closes after this answer.
        opening: it isn't open yet.
        mask: the event that is waited for; the sender's.
    """

    __slots__ = (
        "_got", "_need", "_unsent", "body", "busy", "call", "closing", "endpoint", "fd", "head", "intended", "mask",
        "opening", "socket", "started",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.socket: socket.socket = socket.socket(endpoint.family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self.socket.connect_ex(endpoint.address)
        if code not in _UNDER_WAY:
            self.socket.close()
            raise OSError(code, os.strerror(code))
        self.fd = self.socket.fileno()
        self.opening = True
        self._unsent: bytes | memoryview = b""
        self._got = bytearray()
        self._need = 0
        self.head = self.body = b""
        self.closing = self.busy = False
        self.mask = 0
        self.call = 0
        self.intended = self.started = 0.0

    def send(self, request: bytes) -> int:
        """Begin to send a request; return the event to wait for.

        Raises:
            OSError: the connection is broken.
        """
        if self.opening:
            self._unsent = request
            return WRITE
        try:
            sent = self.socket.send(request)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        if sent == len(request):
            return READ
        self._unsent = memoryview(request)[sent:]
        return WRITE

    def go_on(self) -> int:
        """Go on with opening and sending; return the event to wait for; raises OSError."""
        try:
            if self.opening:
                self._open()
            if not self._unsent:
                return READ
            sent = self.socket.send(self._unsent)
        except ssl.SSLWantReadError:
            return READ
        except (BlockingIOError, ssl.SSLWantWriteError):
            return WRITE
        self._unsent = memoryview(self._unsent)[sent:]
        return WRITE if self._unsent else READ

    @property
    def unsent(self) -> bool:
        """True while the request, or the connection before it, isn't out."""
        return bool(self._unsent)

    def _open(self) -> None:
        code = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        context = self.endpoint.context
        if context is not None:
            if not isinstance(self.socket, ssl.SSLSocket):
                self.socket = context.wrap_socket(
                    self.socket, server_hostname=self.endpoint.host, do_handshake_on_connect=False
                )
            self.socket.do_handshake()
        self.opening = False

    def receive(self) -> bool:
        """Read what has come; return whether the answer is whole, in `head` and `body`.

        Raises:
            OSError: the connection is broken.
            BadAnswerError: what came is no answer.
        """
        data = self._read()
        if data is None:
            return False
        if not data:
            raise ConnectionResetError(errno.ECONNRESET, "closed before the answer")
        if not self._got:
            # Nearly always the whole answer comes at once.
            split = data.find(b"\r\n\r\n")
            if split > 0 and self._length(data[:split].lower()) == len(data) - split - 4:
                self.head, self.body = data[:split], data[split + 4 :]
                return True
        self._got += data
        return self._whole()

    def _read(self) -> bytes | None:
        """Return what has come, empty when the server closed; None when nothing has."""
        parts: list[bytes] = []
        try:
            parts.append(self.socket.recv(CHUNK))
            # Of TLS, more may be decrypted already, and no event would tell.
            while self.endpoint.context is not None and parts[-1]:
                parts.append(self.socket.recv(CHUNK))
        except (BlockingIOError, ssl.SSLWantReadError):
            if not parts:
                return None
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _length(self, head: bytes) -> int:
        """Return the body's length by a head in small letters, -1 for one in chunks."""
        self.closing = b"\r\nconnection: close" in head
        at = head.find(b"\r\ncontent-length:")
        if at < 0:
            if b"\r\ntransfer-encoding: chunked" in head:
                return -1
            raise BadAnswerError
        end = head.find(b"\r\n", at + 2)
        try:
            return int(head[at + 17 : end if end > 0 else None])
        except ValueError:
            raise BadAnswerError from None

    def _whole(self) -> bool:
        got = self._got
        if not self._need:
            split = got.find(b"\r\n\r\n")
            if split < 0:
                if len(got) > CHUNK:
                    raise BadAnswerError
                return False
            self.head = bytes(got[:split])
            length = self._length(self.head.lower())
            self._need = split + 4 + length if length >= 0 else -(split + 4)
        if self._need < 0:
            body = _unchunked(bytes(got[-self._need :]))
            if body is None:
                return False
            self.body = body
        else:
            if len(got) < self._need:
                return False
            self.body = bytes(got[len(self.head) + 4 : self._need])
        self._got, self._need = bytearray(), 0
        return True

    def ended(self, now: float) -> bool:
        """Return whether the server has closed it since its last request; callers look before they send another.

        One that was just used isn't looked at, and of TLS it shows only in reading.

        Args:
            now: as `started`.
        """
        if now - self.started < FRESH_S or self.opening or self.endpoint.context is not None:
            return False
        try:
            return not self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def fields(self) -> dict[str, str]:
        """Return the last answer's headers, names in small letters."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def close(self) -> None:
        self.socket.close()


def _unchunked(data: bytes) -> bytes | None:
    """Return a body that comes in chunks, None while the last one is missing."""
    parts: list[bytes] = []
    at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        try:
            size = int(data[at:end].partition(b";")[0], 16)
        except ValueError:
            raise BadAnswerError from None
        if not size:
            return b"".join(parts)
        parts.append(data[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return None
