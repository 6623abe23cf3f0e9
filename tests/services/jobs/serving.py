"""A worker's models and jobs, asked in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from hone.services.access.gate import make_gate
from hone.services.batching.scheduler import Scheduler
from hone.services.jobs.assembly import WorkerJobs
from hone.services.routes.edge import Edge
from hone.services.routes.hub import Hub
from hone.services.routes.paths import job_path
from hone.services.settings import Settings

Ask = Callable[[httpx.AsyncClient, Hub], Awaitable[None]]


def serve(folder: Path, reference: str, ask: Ask, **settings: Any) -> None:
    """Serve a stored model with jobs, and let a function ask.

    Args:
        folder: of keys; jobs are in one in it.
        reference: of the model.
        ask: gets a client, and the worker's models.
        settings: of the worker.
    """

    async def main() -> None:
        edge = Edge(Settings(**{"jobs_dir": str(folder / "jobs"), **settings}))
        edge.gate = make_gate(edge.settings, folder)
        hub = Hub(edge, Scheduler(2))
        await hub.load(reference)
        jobs = WorkerJobs(hub, edge)

        async def application(scope: Any, receive: Any, send: Any) -> None:
            of_jobs = job_path(scope["path"]) is not None
            await (jobs.answer if of_jobs else hub.routes[scope["path"]])(scope, receive, send)

        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            await ask(client, hub)
        await jobs.close()
        await hub.close()

    asyncio.run(main())


async def ended(client: httpx.AsyncClient, place: str, **options: Any) -> dict[str, Any]:
    """Return a job's status once it is neither queued nor running."""
    while True:
        told: dict[str, Any] = (await client.get(place, **options)).json()
        if told["status"] not in ("queued", "running"):
            return told
        await asyncio.sleep(0.01)
