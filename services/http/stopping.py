"""How a worker ends: readiness off, a while of serving on, answers for what was accepted, and an end in any case.

A caller who never sends the rest of a body, one who doesn't read, a thread that is busy, a collector that doesn't
answer: each of them could keep a process for ever. So each part has its share of `HONE_STOP_S`, and what is left
behind then ends with the process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..settings import Settings
from .watch import abort_all, part_all

logger = logging.getLogger("hone.serving")


class Stopping:
    """The end of a worker.

    Args:
        settings: `drain_s` and `stop_s`.
        turn_unready: called as soon as the end is asked for: readiness goes off before anything else does.
    """

    def __init__(self, settings: Settings, turn_unready: Callable[[], None] | None = None) -> None:
        self._settings = settings
        self._turn_unready = turn_unready
        self._end: float | None = None

    @property
    def left_s(self) -> float:
        """Seconds until the process ends, less a moment for the interpreter's own end."""
        end = time.monotonic() + self._settings.stop_s if self._end is None else self._end
        return max(0.1, end - time.monotonic() - 0.5)

    def on_signals(self) -> None:
        """On SIGTERM report not ready at once, go on serving for `drain_s`, then let the server stop as it would have.

        A load balancer needs a moment to see that a replica goes; requests that it still sends meanwhile are
        answered. What balances connections never takes a caller away who keeps one open: answers tell to close it,
        so that the caller opens the next one elsewhere. SIGINT is somebody at the keyboard, who doesn't wait.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # a server inside another program, which handles signals
        drains = {int(signal.SIGTERM): self._settings.drain_s, int(signal.SIGINT): 0.0}
        for number, drain_s in drains.items():
            self._on_signal(signal.Signals(number), drain_s)
        self._hear(drains)

    def _on_signal(self, awaited: signal.Signals, drain_s: float) -> None:
        loop = asyncio.get_running_loop()
        original = signal.getsignal(awaited)

        def stop(number: int, frame: Any) -> None:
            if self._turn_unready is not None:
                self._turn_unready()
            logger.info("%s: not ready any more, stopping in %g s", awaited.name, drain_s)
            self.begin(drain_s, loop)
            loop.call_soon_threadsafe(part_all)
            if callable(original):
                server_stop = original
                loop.call_soon_threadsafe(loop.call_later, drain_s, lambda: server_stop(number, frame))

        signal.signal(awaited, stop)

    def _hear(self, drains: Mapping[int, float]) -> None:
        """Begin the end even while a call that doesn't return holds the event loop, where no handler can run.

        The system writes each signal's number to a socket at once; a thread reads it and passes it on to the loop.
        """
        loop = asyncio.get_running_loop()
        ours, self._wakeup = socket.socketpair()
        self._wakeup.setblocking(False)
        loops = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)

        def listen() -> None:
            while number := ours.recv(1):
                if number[0] in drains:
                    self.begin(drains[number[0]], loop)
                if loops >= 0:
                    with contextlib.suppress(OSError):
                        os.write(loops, number)

        threading.Thread(target=listen, name="signals", daemon=True).start()

    def begin(self, drain_s: float = 0.0, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Set the end of the process; the first call counts.

        Args:
            drain_s: of serving on before the time for stopping begins.
            loop: whose connections are closed when the callers' part of the time is over.
        """
        if self._end is not None:
            return
        wait_s = drain_s + self._settings.stop_s
        self._end = time.monotonic() + wait_s
        threading.Thread(target=self._end_process, args=(wait_s,), name="end", daemon=True).start()
        if loop is not None:
            callers_s = drain_s + self._settings.answer_s - 0.5
            loop.call_soon_threadsafe(loop.call_later, max(0.0, callers_s), abort_all)

    def _end_process(self, wait_s: float) -> None:
        time.sleep(wait_s)
        busy = [thread.name for thread in threading.enumerate() if not thread.daemon and thread.name != "MainThread"]
        logger.error(
            "not stopped in HONE_STOP_S (%g s)%s; ending the process",
            self._settings.stop_s,
            f", still busy: {', '.join(busy)}" if busy else "",
        )
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1)

    async def within(self, share: float, step: Awaitable[Any], what: str) -> None:
        """Wait for a step of the stop, for a share of the time that is left; what isn't done then is left behind."""
        seconds = self.left_s * share
        try:
            await asyncio.wait_for(step, seconds)
        except TimeoutError:
            logger.warning("%s did not end in %.1f s; left behind", what, seconds)
