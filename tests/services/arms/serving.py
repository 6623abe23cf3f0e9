"""A worker's models, splits and management behind a real HTTP server of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from hone.audit import AuditLog
from hone.services.arms.counts import SharedArms
from hone.services.batching.scheduler import Scheduler
from hone.services.launch import free_port
from hone.services.models.desired import DesiredState
from hone.services.models.followed import Followed
from hone.services.observe.statistics import SharedStatistics
from hone.services.routes.edge import Edge
from hone.services.routes.hub import Hub
from hone.services.routes.management import Management
from hone.services.routes.repository import Repository
from hone.services.routes.splits.operations import SplitOperations
from hone.services.settings import Settings
from tests.servers import caller

BODY = {"inputs": {"features": [[0, 1, 2, 3]]}}


class Worker:
    """One worker, as `ModelService.start` puts it together.

    Args:
        folder: that the workers of its server share.
        references: that it was started with.
        settings: of it.
    """

    def __init__(self, folder: Path, *references: str, **settings: Any) -> None:
        given = Settings(**{"threads": 1, "in_flight": 1, "inference_nice": 0, "max_batch_rows": 8, **settings})
        audit = AuditLog(folder / "audit.jsonl")
        self.edge = Edge(given, audit=audit, statistics=SharedStatistics(folder), arms=SharedArms(folder))
        if given.api_keys:
            from hone.services.access.gate import make_gate

            self.edge.gate = make_gate(given, folder)
        self._folder = folder
        self._references = references

    async def start(self) -> Worker:
        self.hub = Hub(self.edge, Scheduler(1), folder=self._folder)
        self.repository = Repository(self.hub, self.edge, DesiredState(self._folder), Followed(self._references))
        self.operations = SplitOperations(self.hub, self.repository)
        self.management = Management(self.hub, self.edge, self.repository)
        for reference in reversed(self._references):
            await self.hub.load(reference.replace("@champion", ":a"), keep=True)
        await self.repository.catch_up()
        await self.operations.restore()
        return self

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        handler = self.hub.routes.get(scope["path"], self.management)
        await handler(scope, receive, send)


@contextmanager
def serving(worker: Worker, port: int = 0) -> Iterator[httpx.Client]:
    """Serve a worker, on a free port where none is given; yield a client of it."""
    port = port or free_port()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await worker(scope, receive, send)

    async def main() -> None:
        await worker.start()
        config = uvicorn.Config(application, port=port, log_level="error", lifespan="off")
        server.append(uvicorn.Server(config))
        server[0].install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        await server[0].serve()
        await worker.hub.close()

    server: list[uvicorn.Server] = []
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    try:
        with caller(f"http://127.0.0.1:{port}") as client:
            while not (server and server[0].started):
                assert thread.is_alive()
                threading.Event().wait(0.01)
            yield client
    finally:
        if server:
            server[0].should_exit = True
        thread.join()
