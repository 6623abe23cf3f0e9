"""Connections with bounds: how large a request's head may be, how long a caller may take, how many may be open.

uvicorn's protocol over httptools limits none of these. BentoML's worker makes uvicorn's configuration itself, after it
has asked our service for its application; what the name `auto` stands for in it is set there. Times are checked by one
look at all connections twice a second, so that a request costs no timer; a limit is met within that half second.

The protocol's inside is not part of uvicorn's documented interface, so its version is pinned and checked.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any, ClassVar, NoReturn

import httptools
from uvicorn import config as uvicorn_config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hone.errors import HoneError

from ..settings import Settings
from .heads import (
    COUNTED,
    MAX_HEADERS,
    MAX_TARGET,
    OFFERED_WITHIN,
    PROBES,
    head_problem,
    refusal,
    too_large,
    without_offer,
)
from .responses import ABORT
from .watch import MAX_LINGERING, ConnectionLimits, Wait, Watch

PINNED = "0.54.0"
MAX_PIPELINED = 16
"""Requests behind the one that is being answered."""

TOO_MANY = (503, "too many connections; try again", "connections over the limit")

LINGER_S = 2.0
"""A refused caller may read the answer for so long: closing on unread bytes would reset the connection."""


def check_version() -> None:
    """Raise HoneError unless this is the uvicorn whose inside was read."""
    found = version("uvicorn")
    if found != PINNED or "auto" not in uvicorn_config.HTTP_PROTOCOLS:
        raise HoneError(
            f"uvicorn {found} is installed, services/http/connections.py is written against {PINNED}; "
            f"install uvicorn=={PINNED}, or read HttpToolsProtocol of the new version and move the pin"
        )


def install(settings: Settings) -> None:
    """Let the server that this process will start use bounded connections."""
    Connection.limits = ConnectionLimits.of(settings)
    uvicorn_config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{Connection.__name__}"


def limit_handshakes(loop: asyncio.AbstractEventLoop) -> None:
    """Give TLS handshakes on servers that this loop will start as long as heads; a connection begins after its own."""
    create_server: Any = loop.create_server

    def create(*arguments: Any, **options: Any) -> Any:
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", Connection.limits.head_s)
        return create_server(*arguments, **options)

    loop.create_server = create  # type: ignore[method-assign]


class Connection(HttpToolsProtocol):
    """An HTTP/1.1 connection of a caller.

    What it waits for is found by `look`, not noted by requests: those only count bytes.
    """

    limits: ClassVar[ConnectionLimits] = ConnectionLimits()

    def __init__(self, config: Any, server_state: Any, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.timeout_keep_alive = self.limits.kept_s(self.timeout_keep_alive)  # type: ignore[assignment]
        self._watch = self._watch_of(config, server_state, self.loop)
        self._received = 0
        self._understood = 0
        self._hosts = 0
        self._coded = False
        self._refusal: tuple[Any, ...] = (400, "the request is not valid HTTP/1.1")
        self._refused = False
        self._deaf = False
        self._spare = False
        self._answered: Any = None
        self.wait = Wait()

    @classmethod
    def _watch_of(cls, config: Any, server_state: Any, loop: asyncio.AbstractEventLoop) -> Watch:
        """Return the watch of a server; its first connection starts it."""
        watch: Watch | None = getattr(server_state, "watch", None)
        if watch is None:
            limits = cls.limits
            watch = server_state.watch = Watch(server_state.connections, loop, limits.connections)
            # uvicorn waits for its callers without end, unless this is set before it stops.
            given = config.timeout_graceful_shutdown
            config.timeout_graceful_shutdown = limits.answer_s if given is None else min(given, limits.answer_s)
        return watch

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        over = len(self.connections) - self._watch.most
        if over > 0 and not self._watch.make_room():
            if over > MAX_LINGERING:
                self._watch.count("connections over the limit")
                transport.abort()
            else:
                self._spare = True  # it may be a probe: whether a worker lives must be known when it is busiest

    def data_received(self, data: bytes) -> None:
        if self._refused or self._deaf:
            return
        self._received += len(data)
        if b"h2c" in data[:OFFERED_WITHIN] and (self.cycle is None or not self.cycle.more_body):
            data = without_offer(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # It is answered as if it had not asked for another protocol; what follows can't be read.
            self.cycle.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(*self._refusal)
            return
        if self._received - self._understood > self.limits.head_bytes and not self._refused:
            self._refuse(*too_large(len(self.url), self.limits.head_bytes))

    def on_header(self, name: bytes, value: bytes) -> None:
        if "path" in self.scope:
            return  # behind the body: what was checked in the head must not be added to
        name = name.lower()
        if name in COUNTED:
            if name == b"host":
                self._hosts += 1
            elif name == b"transfer-encoding":
                self._coded = True
            elif value.lower() == b"100-continue":
                self.expect_100_continue = True
        if len(self.headers) >= MAX_HEADERS:
            self._reject(431, f"more than {MAX_HEADERS} headers")
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._received - self._understood > self.limits.head_bytes:
            # Part of a body may have come with it.
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self.limits.head_bytes:
                self._reject(*too_large(len(self.url), self.limits.head_bytes))
        self._understood = self._received
        spoken = self.parser.get_http_version()
        if self._hosts != 1 or self._coded or spoken != "1.1" or len(self.url) > MAX_TARGET:
            problem = head_problem(spoken, self._hosts, self._coded, len(self.url))
            if problem is not None:
                self._reject(*problem)
        self._hosts, self._coded = 0, False
        if len(self.pipeline) >= MAX_PIPELINED:
            self._reject(400, f"more than {MAX_PIPELINED} requests wait for an answer")
        if self._spare and self.url not in PROBES:
            self._reject(*TOO_MANY)
        before = self.cycle
        super().on_headers_complete()
        self.scope[ABORT] = self.transport.abort  # type: ignore[literal-required]
        if self._spare:
            self.cycle.keep_alive = False
        elif self._watch.parting:
            if before is not None and not before.response_started:
                before.keep_alive = True  # it is not the last one any more
            self.part()
        if b"%" in self.url and b"%2f" in self.scope["raw_path"].lower():
            # A proxy in front that decides by path sees no "/" there; neither do our routes.
            self.scope["path"] = self.scope["raw_path"].decode()

    def _reject(self, *refusal: Any) -> NoReturn:
        """Let the parser stop, and `data_received` refuse the request: status, message and, if need be, its kind."""
        self._refusal = refusal
        raise ValueError

    def on_body(self, body: bytes) -> None:
        self._understood = self._received
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def _should_upgrade(self) -> bool:
        return False

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        # uvicorn tells the newest request only, which may still wait behind the one that is being answered.
        if self._answered is not None:
            self._leave(self._answered)
        super().connection_lost(exc)

    @staticmethod
    def _leave(cycle: Any) -> None:
        """Let a request know that its caller is gone."""
        if not cycle.response_complete:
            cycle.disconnected = True
            cycle.message_event.set()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _refuse(self, status: int, text: str, kind: str = "") -> None:
        """Answer what was not understood or came too late, and read no more."""
        self._watch.count(kind or f"requests with {status}")
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body:
                # What was understood is answered; the connection ends behind that.
                self._deaf = True
                cycle.keep_alive = False
                return
            self._refused = True
            if self.pipeline or cycle.response_started:
                # An answer now would be taken for that of the request before.
                self._leave(self._answered)
                self.transport.close()
                return
            self._leave(cycle)
        self._refused = True
        self.transport.write(refusal(status, text))
        if self.transport.can_write_eof():
            self.flow.resume_reading()
            self.transport.write_eof()
        else:
            self.transport.close()

    def part(self) -> None:
        """Let the answer that is under way be the last one; one whose head is out already can't tell."""
        if self.cycle is not None and not self.cycle.response_started:
            self.cycle.keep_alive = False

    @property
    def idle(self) -> bool:
        """True while no request is being read to its end or answered."""
        return not self._refused and (self.cycle is None or self.cycle.response_complete)

    def _waits_for(self) -> str:
        """Return what of the caller this connection waits for; an empty string when it is the caller that waits."""
        if self._refused or self.transport.is_closing():
            return "end"
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.more_body and not cycle.waiting_for_100_continue and not self.flow.read_paused:
                return "body"
            return "reader" if self.flow.write_paused else ""
        if self.transport.get_write_buffer_size():
            return "reader"
        return "head" if cycle is None or self._received > self._understood else "next"

    def look(self, now: float) -> None:
        """Note what is waited for, and end a wait that has become too long.

        Args:
            now: seconds of the loop's clock.
        """
        what, limits, wait = self._waits_for(), self.limits, self.wait
        wait.note(what, self.cycle, self._count(what), now)
        waited = wait.seconds
        if self._spare and what == "head" and waited > LINGER_S:
            self._refuse(*TOO_MANY)
        elif what == "next" and waited > self.timeout_keep_alive:
            self.transport.close()
        elif what == "head" and waited > limits.head_s:
            self._end_head()
        elif what == "end" and waited > (LINGER_S if self._refused else limits.head_s):
            self.transport.abort()
        elif what in ("body", "reader") and (waited > limits.body_s or wait.still_s > limits.head_s):
            if what == "body":
                self._refuse(408, "the body did not come in time")
            else:
                self._watch.count("answers not read in time")
                self.transport.abort()

    def _count(self, what: str) -> int:
        """Return the bytes that tell whether a caller moves."""
        if what != "reader":
            return self._received
        left = 0 if self.cycle is None else int(self.cycle.expected_content_length)
        return left + int(self.transport.get_write_buffer_size())

    def _end_head(self) -> None:
        if self._received > self._understood:
            self._refuse(408, "the headers did not come in time")
        else:
            self.transport.close()
