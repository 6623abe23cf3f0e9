"""Jobs of the workers of one host: SQLite with a write-ahead log, and a file for each body and result."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import orjson

from hone.errors import HoneError, one_line
from hone.files import atomic_write, check_writable

from .record import LEASE_S, OPEN, RUNNING, Bounds, Clock, Job, JobStore, OpenJob, new_id, removed

T = TypeVar("T")

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, model TEXT NOT NULL, state TEXT NOT NULL, due REAL NOT NULL, changed REAL NOT NULL,
    bytes INTEGER NOT NULL, record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_due ON jobs (state, due);
"""
BUSY_S = 10.0
"""That a change waits for another process's."""
FORGOTTEN_S = 3600.0
"""A file of no job is of a worker that ended as it wrote it; so old it is thrown away."""


class FolderStore(JobStore):
    """Jobs in a folder.

    `due` is when a job may be taken: when it was submitted, or when the lease of the worker that has it ends.

    Args:
        folder: made private to the user.
        bounds: of what is kept.
        clock: seconds since 1970.

    Raises:
        HoneError: the folder can't be written, or what is in it isn't of jobs.
    """

    def __init__(self, folder: Path, bounds: Bounds, clock: Clock = time.time) -> None:
        self.folder, self._bounds, self._clock = folder, bounds, clock
        self._file = folder / "jobs.sqlite"
        check_writable(folder, "jobs (HONE_JOBS_DIR)")
        folder.chmod(0o700)
        try:
            with self._open() as database:
                database.executescript(SCHEMA)
        except sqlite3.Error as error:
            raise HoneError(f"{self._file}: can't be used for jobs: {one_line(error)}") from None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self._file, BUSY_S, isolation_level=None)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            yield database
        finally:
            database.close()

    async def _change(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run a change in a thread; it is whole or not at all, and no other comes between."""

        def run() -> T:
            with self._open() as database:
                database.execute("BEGIN IMMEDIATE")
                try:
                    result = change(database)
                    database.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        database.execute("ROLLBACK")
                    raise
            return result

        try:
            return await asyncio.to_thread(run)
        except sqlite3.Error as error:
            raise OSError(f"jobs can't be kept: {one_line(error)}") from None

    def _body(self, job_id: str) -> Path:
        return self.folder / f"{job_id}.body"

    def _result(self, job: Job) -> Path:
        return self.folder / f"{job.id}.{job.attempt}.result"

    @staticmethod
    def _find(database: sqlite3.Connection, job_id: str) -> Job | None:
        row = database.execute("SELECT record FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return Job.from_json(row[0]) if row else None

    @staticmethod
    def _put(database: sqlite3.Connection, job: Job, due: float) -> None:
        values = (job.id, job.model, job.state, due, job.changed, job.held, job.to_json())
        database.execute("INSERT OR REPLACE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?)", values)

    async def add(self, job: Job, body: Path) -> None:
        def change(database: sqlite3.Connection) -> None:
            count, held = database.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM jobs").fetchone()
            self._bounds.check(count, held, job.held)
            body.replace(self._body(job.id))
            self._put(database, job, job.submitted)

        await self._change(change)

    async def get(self, job_id: str) -> Job | None:
        return await self._change(lambda database: self._find(database, job_id))

    async def take(self, models: Sequence[str]) -> tuple[Job, bytes] | None:
        names = orjson.dumps(list(models)).decode()

        lost: list[Job] = []

        def change(database: sqlite3.Connection) -> Job | None:
            while True:
                row = database.execute(
                    "SELECT record FROM jobs WHERE state IN (?, ?) AND due <= ? "
                    "AND model IN (SELECT value FROM json_each(?)) ORDER BY due LIMIT 1",
                    (*OPEN, self._clock(), names),
                ).fetchone()
                if row is None:
                    return None
                job = Job.from_json(row[0]).taken(self._clock())
                self._put(database, job, self._clock() + LEASE_S)
                if job.state == RUNNING:
                    return job
                self._body(job.id).unlink(missing_ok=True)
                lost.append(job)

        job = await self._change(change)
        for one in lost:
            self.ended(one)
        if job is None:
            return None
        try:
            return job, await asyncio.to_thread(self._body(job.id).read_bytes)
        except FileNotFoundError:  # it was canceled just now
            return None

    def _its_own(self, database: sqlite3.Connection, job: Job) -> bool:
        """Return whether a job is still this worker's."""
        now = self._find(database, job.id)
        return now is not None and now.state == RUNNING and now.attempt == job.attempt

    async def hold(self, job: Job) -> bool:
        def change(database: sqlite3.Connection) -> bool:
            own = self._its_own(database, job)
            if own:
                self._put(database, job, self._clock() + LEASE_S)
            return own

        return await self._change(change)

    async def give_back(self, job: Job) -> None:
        def change(database: sqlite3.Connection) -> None:
            if self._its_own(database, job):
                self._put(database, job.returned(), job.submitted)

        await self._change(change)

    async def finish(self, job: Job, result: bytes) -> bool:
        file = self.folder / f"{job.id}.{new_id()}.incoming"
        if result:
            await asyncio.to_thread(atomic_write, file, result, 0o600)

        def change(database: sqlite3.Connection) -> bool:
            if not self._its_own(database, job):
                return False
            (held,) = database.execute("SELECT sum(bytes) FROM jobs").fetchone()
            self._bounds.check_bytes(held - job.body_bytes, job.held)
            if result:
                file.replace(self._result(job))
            self._put(database, job, self._clock())
            return True

        try:
            kept = await self._change(change)
        finally:
            file.unlink(missing_ok=True)
        if kept:
            self._body(job.id).unlink(missing_ok=True)
        return kept

    async def result(self, job: Job) -> bytes | None:
        try:
            return await asyncio.to_thread(self._result(job).read_bytes)
        except FileNotFoundError:
            return None

    async def remove(self, job: Job) -> Job:
        def change(database: sqlite3.Connection) -> Job:
            now = self._find(database, job.id)
            if now is None:
                return job
            left = removed(now, self._clock())
            if left is now:
                database.execute("DELETE FROM jobs WHERE id = ?", (job.id,))
            else:
                self._put(database, left, self._clock())
            return left

        left = await self._change(change)
        self._unlink(left)
        return left

    def _unlink(self, job: Job) -> None:
        for file in (self._body(job.id), self._result(job)):
            file.unlink(missing_ok=True)

    async def open_jobs(self) -> list[OpenJob]:
        def look(database: sqlite3.Connection) -> list[OpenJob]:
            rows = database.execute("SELECT record FROM jobs WHERE state IN (?, ?)", OPEN).fetchall()
            return [OpenJob(job.model, job.state, job.submitted) for job in (Job.from_json(row[0]) for row in rows)]

        return await self._change(look)

    async def sweep(self) -> None:
        def change(database: sqlite3.Connection) -> list[Job]:
            before = self._clock() - self._bounds.age_s
            rows = database.execute("SELECT record FROM jobs WHERE changed < ?", (before,)).fetchall()
            database.execute("DELETE FROM jobs WHERE changed < ?", (before,))
            return [Job.from_json(row[0]) for row in rows]

        for job in await self._change(change):
            self._unlink(job)
        await asyncio.to_thread(self._sweep_files)

    def _sweep_files(self) -> None:
        """Throw away files of no job: a worker ended between a file and its record."""
        with self._open() as database:
            known = {row[0] for row in database.execute("SELECT id FROM jobs")}
        for file in self.folder.iterdir():
            of_jobs = file.name.startswith(self._file.name) or file.name.partition(".")[0] in known
            with contextlib.suppress(OSError):
                if not of_jobs and time.time() - file.stat().st_mtime > FORGOTTEN_S:
                    file.unlink()
