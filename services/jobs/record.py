"""What a job is, what may become of it, and what keeps jobs."""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from ..http.failures import RequestError
from ..settings import Settings

QUEUED, RUNNING, DONE, FAILED, CANCELED = "queued", "running", "done", "failed", "canceled"
OPEN = (QUEUED, RUNNING)
LEASE_S = 15.0
"""A worker that says nothing of its job for so long is taken for dead, and another takes the job."""

MOST_ATTEMPTS = 3
"""A job whose workers ended so often is what ends them."""

CALLER = "hone-caller"
"""Field of a job's head: what the caller's header said, that tells callers apart."""

ID = re.compile(r"[0-9a-f]{32}")


class JobsFullError(RequestError):
    """No more jobs are kept until some are done, thrown away or old."""

    status = 503

    def __init__(self, message: str) -> None:
        super().__init__(message, (("retry-after", "10"),))


@dataclass(frozen=True)
class Job:
    """One job.

    Attributes:
        id: made up; nobody can guess it.
        model: that is to answer.
        owner: id of the key or token that submitted it; empty where there are no keys.
        head: what of the request's head its body is read by.
        body_bytes: of the body, as it came.
        submitted, changed: seconds since 1970.
        state: queued, running, done, failed or canceled.
        attempt: how often it was taken; a result of an earlier one is not kept.
        rows, rows_done: known once it runs.
        answered_by: the tag of what answered.
        fields: of the result's head.
        result_bytes: of the result.
        error, error_status: why it failed, as the request would have.
    """

    id: str
    model: str
    owner: str
    head: dict[str, str]
    body_bytes: int
    submitted: float
    changed: float
    state: str = QUEUED
    attempt: int = 0
    rows: int = 0
    rows_done: int = 0
    answered_by: str = ""
    fields: tuple[tuple[str, str], ...] = ()
    result_bytes: int = 0
    error: str = ""
    error_status: int = 0

    @property
    def held(self) -> int:
        """Bytes that are kept of it: its body until it is done, then its result."""
        return self.body_bytes if self.state in OPEN else self.result_bytes

    def told(self) -> dict[str, Any]:
        """Return what its submitter may know."""
        known: dict[str, Any] = {"id": self.id, "model": self.model, "status": self.state, "submitted": self.submitted}
        if self.state != QUEUED:
            known |= {"changed": self.changed, "attempt": self.attempt}
        if self.rows:
            known |= {"rows": self.rows, "rows_done": self.rows_done}
        if self.answered_by:
            known["answered_by"] = self.answered_by
        if self.state == DONE:
            known["result_bytes"] = self.result_bytes
        if self.state == FAILED:
            known |= {"error": self.error, "error_status": self.error_status}
        return known

    def to_json(self) -> bytes:
        return orjson.dumps(asdict(self))

    @classmethod
    def from_json(cls, content: bytes | str) -> Job:
        values = orjson.loads(content)
        values["fields"] = tuple((name, value) for name, value in values["fields"])
        return cls(**values)

    def taken(self, now: float) -> Job:
        """Return it as it is when a worker takes it: one that ended its workers too often has failed."""
        if self.attempt >= MOST_ATTEMPTS:
            text = f"the worker that computed it ended, {self.attempt} times"
            return replace(self, state=FAILED, error=text, error_status=500, changed=now)
        return replace(self, state=RUNNING, attempt=self.attempt + 1, rows_done=0, changed=now)

    def returned(self) -> Job:
        """Return it as it was before a worker took it."""
        return replace(self, state=QUEUED, attempt=self.attempt - 1, rows=0, rows_done=0, answered_by="")


@dataclass(frozen=True)
class OpenJob:
    """What metrics show of a job that is not done."""

    model: str
    state: str
    submitted: float


def new_id() -> str:
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Bounds:
    """What is kept of all jobs: how many, how many bytes, and how long since they last changed."""

    count: int
    bytes: int
    age_s: float

    @classmethod
    def of(cls, settings: Settings) -> Bounds:
        return cls(settings.jobs_most, int(settings.jobs_mb * 1e6), settings.jobs_hours * 3600)

    def check(self, count: int, held: int, more: int) -> None:
        """Raise JobsFullError when there is no room for another job of so many bytes."""
        if count >= self.count:
            raise JobsFullError(f"{count} jobs are kept, {self.count} may be; get results and delete them")
        self.check_bytes(held, more)

    def check_bytes(self, held: int, more: int) -> None:
        if held + more > self.bytes:
            raise JobsFullError(
                f"jobs hold {held / 1e6:.1f} MB of {self.bytes / 1e6:g}, and this takes {more / 1e6:.1f}; "
                "get results and delete them"
            )


class JobStore(ABC):
    """Keeps jobs for all workers that may compute them; every change of one is whole or not at all.

    Attributes:
        folder: of this host, where bodies are written before they are handed over.
        ended: gets a job that failed as it was taken: no worker computes it once more.
    """

    folder: Path
    ended: Callable[[Job], None] = staticmethod(lambda _: None)

    @abstractmethod
    async def add(self, job: Job, body: Path) -> None:
        """Keep a job and its body; the file is the store's from now on.

        Raises:
            JobsFullError: there is no room.
            OSError: it can't be written.
        """

    @abstractmethod
    async def get(self, job_id: str) -> Job | None:
        """Return a job; None when there is none, or no more."""

    @abstractmethod
    async def take(self, models: Sequence[str]) -> tuple[Job, bytes] | None:
        """Return the oldest job of these models that nobody computes, and its body; it is this worker's for `LEASE_S`.

        One whose worker ended comes back until it has had `MOST_ATTEMPTS`.
        """

    @abstractmethod
    async def hold(self, job: Job) -> bool:
        """Keep a job that was taken for another `LEASE_S`, with how far it is; False: it is this worker's no more."""

    @abstractmethod
    async def give_back(self, job: Job) -> None:
        """Let another worker take a job, as if this one never had."""

    @abstractmethod
    async def finish(self, job: Job, result: bytes) -> bool:
        """Keep what became of a job; False, and nothing is kept, when it is this worker's no more.

        Raises:
            JobsFullError: the result has no room.
        """

    @abstractmethod
    async def result(self, job: Job) -> bytes | None:
        """Return the result of a job that is done; None when it is gone."""

    @abstractmethod
    async def remove(self, job: Job) -> Job:
        """Cancel a job that is open, or throw away one that isn't; return it as it is then."""

    @abstractmethod
    async def open_jobs(self) -> list[OpenJob]:
        """Return the jobs that are not done, of all models."""

    @abstractmethod
    async def sweep(self) -> None:
        """Throw away jobs that are too old."""

    async def close(self) -> None:  # noqa: B027 - one of files has nothing to close
        """Give back connections."""


def removed(job: Job, now: float) -> Job:
    """Return a job as it is once it is canceled; one that isn't open stays as it is."""
    return replace(job, state=CANCELED, changed=now) if job.state in OPEN else job


Clock = Callable[[], float]
