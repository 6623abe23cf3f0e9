"""The sender of a plan whose requests are gRPC messages: the same records, by the same rules, with grpcio's client.

HTTP/2 is not written by hand here. The client's own time for a call is part of the latencies; it is about three times
what a request of HTTP/1.1 takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import select
import selectors
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from hone.errors import HoneError

from ..wire import GRPC_METHOD, WIRES, Expected, Wire
from .commands import Commands
from .plan import GRACE_S, INTERRUPTED, NOT_SENT, PAUSE_S, REMEMBERED, TICK_S, TIMEOUT_S, Log, Plan

CONNECTIONS = 8
"""Calls share them in turn; a server's workers share connections, not calls."""

CONNECT_S = 5.0
OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),  # else equal channels are one connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
)

_clock = time.monotonic


class _PreciseSelector(selectors.DefaultSelector):
    """Waits to the microsecond: epoll counts in milliseconds, which is what a generator may be late by in all."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0 and hasattr(select, "epoll"):
            select.select([self.fileno()], (), (), timeout)
            timeout = 0
        return super().select(timeout)


class GrpcSender:
    """One plan from start to end.

    Raises:
        HoneError: grpcio isn't installed.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        try:
            import grpc
        except ImportError:
            raise HoneError("the protocol grpc needs grpcio; pip install 'hone[ops]'") from None
        self._grpc = grpc
        self._plan = plan
        self._log = Log(folder, plan.number)
        self._metadata = tuple(plan.metadata.items())
        self._order: list[int] = plan.order.tolist()
        self._rows: list[int] = plan.rows.tolist()
        self._good: dict[int, bytes] = {}
        self._wire = WIRES.get(plan.wire)
        self._methods: list[Any] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._users, self._wanted = 0, plan.users
        self._sent = 0
        self._next_kept = 0.0 if plan.keep_every_s else float("inf")
        self._started: asyncio.Event
        self._stopped: asyncio.Event
        self._zero = 0.0

    def run(self) -> None:
        """Send until the plan is done or the command comes; leave the records in any case.

        Raises:
            HoneError: no gRPC service answers there.
            OSError: the records can't be written.
        """
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_PreciseSelector())) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        self._started, self._stopped = asyncio.Event(), asyncio.Event()
        channels = [self._channel() for _ in range(CONNECTIONS)]
        try:
            await asyncio.gather(*(self._open(channel) for channel in channels))
            stdin = sys.stdin.fileno()
            asyncio.get_running_loop().add_reader(stdin, self._obey, Commands(stdin), stdin)
            print("ready", flush=True)  # noqa: T201 - to who started this
            # A collection of the generator's own objects would show as latency of the service.
            gc.freeze()
            gc.disable()
            await self._started.wait()
            await asyncio.sleep(self._zero - _clock())
            begun, spent = _clock(), time.process_time()
            flushing = asyncio.ensure_future(self._flush())
            await (
                self._closed_loop() if self._plan.arrivals is None else self._open_loop(self._plan.arrivals.tolist())
            )
            await self._last_answers()
            flushing.cancel()
            wall = _clock() - begun
            share = (time.process_time() - spent) / wall if wall > 0 else 0.0
            self._log.close(cpu_share=round(share, 4), wall_s=round(wall, 3))
        finally:
            await asyncio.gather(*(channel.close() for channel in channels), return_exceptions=True)

    def _channel(self) -> Any:
        scheme, _, address = self._plan.url.partition("://")
        if scheme == "grpc":
            return self._grpc.aio.insecure_channel(address, options=OPTIONS)
        roots = Path(self._plan.ca).read_bytes() if self._plan.ca else None
        return self._grpc.aio.secure_channel(address, self._grpc.ssl_channel_credentials(roots), options=OPTIONS)

    async def _open(self, channel: Any) -> None:
        try:
            await asyncio.wait_for(channel.channel_ready(), CONNECT_S)
        except TimeoutError:
            raise HoneError(f"{self._plan.url}: no gRPC service answers; --grpc-address gives another one") from None
        self._methods.append(channel.unary_unary(GRPC_METHOD))

    def _obey(self, commands: Commands, stdin: int) -> None:
        for word, value in commands.read():
            if word == "start":
                self._zero = float(value)
                self._started.set()
            elif word == "users":
                self._wanted = int(value)
            elif word == "stop":
                self._stopped.set()
                self._started.set()
        if commands.ended:
            asyncio.get_running_loop().remove_reader(stdin)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._log.flush()

    async def _open_loop(self, due: list[float]) -> None:
        for intended in due:
            while (wait := self._zero + intended - _clock()) > 0 and not self._stopped.is_set():
                await asyncio.sleep(min(wait, TICK_S))
            if self._stopped.is_set():
                return
            if len(self._tasks) >= self._plan.in_flight:
                self._log.add(intended, intended, intended, self._next_call(), NOT_SENT, 0)
            else:
                self._begin(self._send(intended))

    async def _closed_loop(self) -> None:
        """Let callers in and out as they are wanted, until the time is over."""
        while self._going_on():
            while self._users < self._wanted:
                self._users += 1
                self._begin(self._caller())
            left = self._zero + self._plan.duration_s - _clock() if self._plan.duration_s else TICK_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), max(0.0, min(left, TICK_S)))

    def _going_on(self) -> bool:
        over = self._plan.duration_s and _clock() >= self._zero + self._plan.duration_s
        return not over and not self._stopped.is_set()

    async def _caller(self) -> None:
        while self._going_on() and self._users <= self._wanted:
            if not await self._send(_clock() - self._zero):
                await asyncio.sleep(PAUSE_S)
        self._users -= 1

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _last_answers(self) -> None:
        """Wait for what is in flight, each until its own time is over; after a stop a moment only."""
        while self._tasks and not self._stopped.is_set():
            await asyncio.wait(self._tasks, timeout=TICK_S)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _next_call(self) -> int:
        call = self._order[self._sent % len(self._order)]
        self._sent += 1
        return call

    async def _send(self, intended: float) -> bool:
        """Send the next request and note what became of it; return whether the service was there."""
        number, call = self._sent, self._next_call()
        started, error, answer, there = _clock() - self._zero, "", b"", True
        method = self._methods[number % len(self._methods)]
        try:
            answer = await method(self._plan.requests[call], metadata=self._metadata, timeout=TIMEOUT_S)
        except self._grpc.aio.AioRpcError as failure:
            error, there = f"gRPC {failure.code().name}", failure.code() is not self._grpc.StatusCode.UNAVAILABLE
        except asyncio.CancelledError:
            error = INTERRUPTED
        ended = _clock() - self._zero
        if not error and self._wire is not None and self._good.get(call) != answer:
            error = self._check(self._wire, call, answer)
        if ended + self._zero >= self._next_kept and not error:
            self._log.keep(call, b"", answer)
            self._next_kept = ended + self._zero + self._plan.keep_every_s
        self._log.add(intended, started, ended, call, error, len(answer))
        return there

    def _check(self, wire: Wire, call: int, answer: bytes) -> str:
        expected = Expected(self._rows[call] or None, self._plan.tag or None, self._plan.outputs)
        error = wire.fault(200, answer, {}, expected)
        if not error and len(answer) <= REMEMBERED:
            self._good[call] = answer
        return error
