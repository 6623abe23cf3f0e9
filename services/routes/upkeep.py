"""What a worker does on its own, again and again: follow the other workers, count, heal, and end with its server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal

import psutil

from ..models.desired import POLL_S
from ..settings import LAUNCHER
from .hub import Hub
from .repository import Repository

logger = logging.getLogger("hone.serving")


async def tend(hub: Hub, repository: Repository, golden_check_s: float) -> None:
    """Do all of it until cancelled."""
    await asyncio.gather(keep_up(hub, repository), watch_answers(hub, golden_check_s))


async def watch_answers(hub: Hub, interval_s: float) -> None:
    """Compare the models' answers with their proofs' again and again; 0: never.

    The workers of many hosts start together; they don't check together.
    """
    while interval_s:
        await asyncio.sleep(interval_s * random.uniform(0.9, 1.1))
        try:
            await hub.check_golden()
        except Exception:
            logger.exception("comparing answers with the proof's failed")


async def keep_up(hub: Hub, repository: Repository) -> None:
    """Follow the list of models, keep metrics fresh and heal sick runtimes, until cancelled.

    A worker whose server has gone, for example killed while it started this worker, stops too. A server whose
    `hone serve` was killed is stopped.
    """
    server, launcher = os.getppid(), os.environ.get(LAUNCHER, "")
    orphaned = False
    while True:
        await asyncio.sleep(POLL_S)
        if launcher and not orphaned and _parent_of(server) != int(launcher):
            logger.error("hone serve, which started this server, is gone; stopping the server")
            orphaned = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(server, signal.SIGTERM)
        if os.getppid() != server:
            logger.error("the server of this worker is gone; stopping")
            os.kill(os.getpid(), signal.SIGTERM)
            return
        try:
            hub.flush()
            await repository.catch_up()
            await hub.heal()
        except Exception:
            logger.exception("upkeep failed")


def _parent_of(process: int) -> int:
    try:
        return int(psutil.Process(process).ppid())
    except psutil.Error:
        return 0
