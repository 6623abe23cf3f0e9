"""The jobs of a worker, put together as its settings ask for them."""

from __future__ import annotations

from pathlib import Path

from ..routes.edge import Edge
from ..routes.hub import Hub
from ..settings import Settings
from .endpoint import Jobs
from .folder_store import FolderStore
from .record import Bounds, JobStore
from .runner import JobRunner


class WorkerJobs:
    """What a worker does with jobs: answers for them, and computes them.

    Attributes:
        answer: to every path of jobs.
    """

    def __init__(self, hub: Hub, edge: Edge) -> None:
        self._store = make_store(edge.settings)
        self._runner = JobRunner(self._store, hub, edge)
        self.answer = Jobs(self._store, self._runner, hub, edge)
        self._runner.start()

    async def close(self) -> None:
        """Give back the job that is at work."""
        await self._runner.close()
        await self._store.close()


def make_store(settings: Settings) -> JobStore:
    """Return what keeps jobs.

    Raises:
        HoneError: the folder or Redis can't be used.
    """
    folder = Path(settings.jobs_dir)
    if settings.jobs_redis:
        from .redis_store import RedisStore

        return RedisStore(settings.redis_url, folder, Bounds.of(settings))
    return FolderStore(folder, Bounds.of(settings))
