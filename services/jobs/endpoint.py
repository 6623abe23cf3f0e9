"""Jobs over HTTP: submit, look, get the result, cancel. Who didn't submit a job doesn't learn that there is one."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import IO

from ..http.failures import MediaTypeError, NotFoundError, RequestError, is_unexpected
from ..http.reading import check_length, opener_of, too_large
from ..http.responses import (
    NO_STORE,
    ClientGoneError,
    Fields,
    Head,
    Receive,
    Scope,
    Send,
    media_type,
    require_method,
    respond,
    respond_error,
    respond_json,
)
from ..routes.edge import REQUEST_ID, Edge
from ..routes.hub import Hub
from ..routes.paths import JobPath, job_path
from .metrics import count_ended
from .record import CALLER, CANCELED, DONE, FAILED, ID, OPEN, Bounds, Job, JobsFullError, JobStore, new_id
from .runner import JobRunner, body_bytes, limits_of, protocols_of

logger = logging.getLogger("hone.serving")

SETTING = "HONE_JOBS_BODY_MB"
KEPT = (b"content-encoding", b"x-shape")
"""What a body is read by, beside its content type."""
ANY = (b"", b"*/*", b"application/*")


class NotDoneError(RequestError):
    status = 409


class NotAcceptableError(RequestError):
    status = 406


class Jobs:
    """Answers all paths of jobs.

    Args:
        store: of the jobs.
        runner: of this worker, which is told of new ones.
        hub: of the worker.
        edge: of the worker.
    """

    def __init__(self, store: JobStore, runner: JobRunner, hub: Hub, edge: Edge) -> None:
        self._store, self._runner, self._hub, self._edge = store, runner, hub, edge
        self._limit = body_bytes(edge.settings)
        self._room = Bounds.of(edge.settings)
        self._caller = edge.settings.subject_header.lower().encode()
        self._coming = 0  # bytes of bodies that aren't whole yet: they take the disk, too

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head, path, began = dict(scope["headers"]), job_path(scope["path"]), time.monotonic()
        request_id = self._edge.request_id(head)
        fields, status, problem = [(REQUEST_ID, request_id)], 200, ""
        assert path is not None
        try:
            caller = await self._edge.admit(head, "predict", path.model)
            owner = caller.id if caller is not None else ""
            if not path.job:
                require_method(scope, "POST")
                status = 202
                await self._submit(path, head, owner, receive, send, fields)
            else:
                await self._one(await self._found(path, owner), path, scope, send, fields)
        except ClientGoneError:
            return
        except Exception as error:
            if isinstance(error, OSError):
                error = JobsFullError(f"jobs can't be kept or read: {error.strerror or error}")
            if is_unexpected(error):
                logger.error("request %s failed", request_id.decode(), exc_info=error)
            status, problem = getattr(error, "status", 500), str(error)
            await respond_error(send, error, fields)
        self._edge.log(request_id.decode(), path.model, "jobs", status, time.monotonic() - began, 0, problem)

    async def _found(self, path: JobPath, owner: str) -> Job:
        job = await self._store.get(path.job) if ID.fullmatch(path.job) else None
        if job is None or job.model != path.model or job.owner != owner:
            raise NotFoundError(f"there is no job '{path.job[:40]}' of '{path.model}', or it isn't yours")
        return job

    async def _submit(
        self, path: JobPath, head: Head, owner: str, receive: Receive, send: Send, fields: Fields
    ) -> None:
        """Keep a body, unread, and say under which id."""
        protocols = protocols_of(self._hub.get(path.model), limits_of(self._edge.settings))
        content = media_type(head)
        if content not in protocols:
            known = ", ".join(sorted(name.decode() for name in protocols if name))
            raise MediaTypeError(f"content type '{content.decode('latin-1')}' is not supported; send one of: {known}")
        opener_of(head.get(b"content-encoding", b"identity").strip().lower())
        kept = {name.decode(): head[name].decode("latin-1") for name in KEPT if name in head}
        if caller := head.get(self._caller):
            kept[CALLER] = caller.decode("latin-1")
        kept |= {"content-type": content.decode(), "accept": _accepted(head, content, [*protocols]).decode()}
        now = time.time()
        body = await self._spooled(head, receive)
        try:
            size = body.stat().st_size
            job = Job(new_id(), path.model, owner, kept, size, submitted=now, changed=now)
            await self._store.add(job, body)
        finally:
            body.unlink(missing_ok=True)
        self._runner.wake()
        place = f"/models/{path.model}/jobs/{job.id}"
        await respond_json(send, 202, job.told(), [*fields, (b"location", place.encode())])

    async def _spooled(self, head: Head, receive: Receive) -> Path:
        """Write a body to a file as it comes, so that it takes no memory; return the file."""
        check_length(head, self._limit, SETTING)
        handle, name = tempfile.mkstemp(dir=self._store.folder, suffix=".incoming")
        size, body = 0, Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    piece = message.get("body", b"")
                    size += len(piece)
                    self._coming += len(piece)
                    if size > self._limit:
                        raise too_large(self._limit, setting=SETTING)
                    self._room.check_bytes(self._coming - size, size)
                    await asyncio.to_thread(stream.write, piece)
                    if not message.get("more_body"):
                        break
                await asyncio.to_thread(_to_disk, stream)
        except BaseException:
            body.unlink(missing_ok=True)
            raise
        finally:
            self._coming -= size
        return body

    async def _one(self, job: Job, path: JobPath, scope: Scope, send: Send, fields: Fields) -> None:
        if path.result:
            require_method(scope, "GET")
            await self._result(job, send, fields)
            return
        if scope["method"] == "DELETE":
            left = await self._store.remove(job)
            if left.state == CANCELED and job.state in OPEN:
                count_ended(left, time.time())
            told = left.told() if job.state in OPEN else {**left.told(), "status": "deleted"}
            await respond_json(send, 200, told, fields)
            return
        require_method(scope, "GET")
        await respond_json(send, 200, job.told(), fields)

    async def _result(self, job: Job, send: Send, fields: Fields) -> None:
        if job.state == FAILED:
            await respond_json(send, job.error_status, {"error": job.error}, fields)
            return
        if job.state != DONE:
            raise NotDoneError(f"the job is {job.state}; it has no result" + (" yet" if job.state in OPEN else ""))
        content = await self._store.result(job)
        if content is None:
            raise NotFoundError("the result is gone")
        told = [(name.encode(), value.encode("latin-1")) for name, value in job.fields]
        await respond(send, 200, content, [*told, NO_STORE, *fields])


def _to_disk(stream: IO[bytes]) -> None:
    stream.flush()
    os.fsync(stream.fileno())


def _accepted(head: Head, content: bytes, known: list[bytes]) -> bytes:
    """Return the content type that a result is to have: the first that is accepted and known, else the body's own."""
    wanted = [part.partition(b";")[0].strip().lower() for part in head.get(b"accept", b"").split(b",")]
    for one in wanted:
        if one in ANY:
            return content
        if one in known:
            return one
    there = ", ".join(sorted(name.decode() for name in known if name))
    raise NotAcceptableError(f"no result can be '{wanted[0].decode('latin-1')[:60]}'; accept one of: {there}")
