"""Jobs that replicas share, in one Redis: every change is a script there, and the time is Redis's own.

Of each model a sorted set says when a job may be taken: since it was submitted, or once the lease of the worker that
has it ends. Not for a Redis Cluster: a script's keys lie in one place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hone.files import check_writable

from ..cache.redis_client import PREFIX, connect, error_name
from .record import LEASE_S, OPEN, RUNNING, Bounds, Job, JobStore, OpenJob, removed

PLACE = PREFIX + b"jobs:"
TIMEOUT_S = 10.0
"""Of an answer: bodies and results are large."""

BEGIN = """
local p, time = KEYS[1], redis.call('TIME')
local now = time[1] + time[2] / 1000000
local function held()
  local sum = 0
  for _, bytes in ipairs(redis.call('HVALS', p .. 'bytes')) do sum = sum + bytes end
  return sum
end
local function own(id, attempt)
  local job = redis.call('HMGET', p .. id, 'state', 'attempt')
  return job[1] == 'running' and job[2] == attempt
end
local function forget(id)
  local model = redis.call('HGET', p .. id, 'model')
  if model then redis.call('ZREM', p .. 'due:' .. model, id) end
  redis.call('DEL', p .. id, p .. id .. ':body', p .. id .. ':result')
  redis.call('HDEL', p .. 'bytes', id)
  redis.call('ZREM', p .. 'all', id)
end
"""

ADD = """
local id, model, record, body, bytes, most, most_bytes, age = unpack(ARGV)
local count, sum = redis.call('HLEN', p .. 'bytes'), held()
if count >= tonumber(most) or sum + bytes > tonumber(most_bytes) then return {0, count, sum} end
redis.call('HSET', p .. id, 'model', model, 'state', 'queued', 'attempt', 0, 'record', record)
redis.call('SET', p .. id .. ':body', body, 'EX', age)
redis.call('EXPIRE', p .. id, age)
redis.call('HSET', p .. 'bytes', id, bytes)
redis.call('ZADD', p .. 'all', now, id)
redis.call('ZADD', p .. 'due:' .. model, now, id)
return {1, count, sum}
"""

TAKE = """
local lease = table.remove(ARGV, 1)
while true do
  local id, model, due = nil, nil, nil
  for _, name in ipairs(ARGV) do
    local first = redis.call('ZRANGEBYSCORE', p .. 'due:' .. name, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1)
    if first[1] and (not due or tonumber(first[2]) < due) then id, model, due = first[1], name, tonumber(first[2]) end
  end
  if not id then return false end
  local body = redis.call('GET', p .. id .. ':body')
  if body and redis.call('EXISTS', p .. id) == 1 then
    local attempt = redis.call('HINCRBY', p .. id, 'attempt', 1)
    redis.call('HSET', p .. id, 'state', 'running')
    redis.call('ZADD', p .. 'due:' .. model, now + lease, id)
    return {redis.call('HGET', p .. id, 'record'), attempt, body}
  end
  redis.call('ZREM', p .. 'due:' .. model, id)
end
"""

HOLD = """
local id, model, attempt, record, lease = unpack(ARGV)
if not own(id, attempt) then return 0 end
redis.call('HSET', p .. id, 'record', record)
redis.call('ZADD', p .. 'due:' .. model, now + lease, id)
return 1
"""

GIVE_BACK = """
local id, model, attempt, record = unpack(ARGV)
if not own(id, attempt) then return 0 end
redis.call('HSET', p .. id, 'record', record, 'state', 'queued', 'attempt', attempt - 1)
redis.call('ZADD', p .. 'due:' .. model, now, id)
return 1
"""

FINISH = """
local id, model, attempt, record, state, result, before, bytes, most_bytes, age = unpack(ARGV)
if not own(id, attempt) then return {0, 0} end
local sum = held() - before
if sum + bytes > tonumber(most_bytes) then return {-1, sum} end
redis.call('HSET', p .. id, 'record', record, 'state', state)
redis.call('ZREM', p .. 'due:' .. model, id)
redis.call('DEL', p .. id .. ':body')
redis.call('SET', p .. id .. ':result', result, 'EX', age)
redis.call('EXPIRE', p .. id, age)
redis.call('HSET', p .. 'bytes', id, bytes)
redis.call('ZADD', p .. 'all', now, id)
return {1, sum}
"""

REMOVE = """
local id, model, record = unpack(ARGV)
local state = redis.call('HGET', p .. id, 'state')
if state ~= 'queued' and state ~= 'running' then
  forget(id)
  return 0
end
redis.call('HSET', p .. id, 'record', record, 'state', 'canceled')
redis.call('ZREM', p .. 'due:' .. model, id)
redis.call('DEL', p .. id .. ':body')
redis.call('HSET', p .. 'bytes', id, 0)
redis.call('ZADD', p .. 'all', now, id)
return 1
"""

LOOK = """
local found = {}
for _, id in ipairs(redis.call('ZRANGE', p .. 'all', 0, -1)) do
  local job = redis.call('HMGET', p .. id, 'model', 'state', 'record')
  if job[2] == 'queued' or job[2] == 'running' then
    table.insert(found, {job[1], job[2], string.format('%.3f', cjson.decode(job[3]).submitted)})
  end
end
return found
"""

SWEEP = """
for _, id in ipairs(redis.call('ZRANGEBYSCORE', p .. 'all', '-inf', now - ARGV[1])) do forget(id) end
return 1
"""


class RedisStore(JobStore):
    """Jobs in Redis.

    Args:
        url: redis:// or rediss://; a password in it is never logged.
        folder: of this host, for bodies that are coming in.
        bounds: of what is kept.

    Raises:
        HoneError: the client isn't installed, the URL is wrong, or the folder can't be written.
    """

    def __init__(self, url: str, folder: Path, bounds: Bounds) -> None:
        check_writable(folder, "jobs (HONE_JOBS_DIR)")
        self.folder, self._bounds = folder, bounds
        self._client = connect(url, TIMEOUT_S)
        self._age = max(1, int(bounds.age_s))

    async def _script(self, script: str, *values: Any) -> Any:
        return await _told(self._client.eval(BEGIN + script, 1, PLACE, *values))

    async def add(self, job: Job, body: Path) -> None:
        content = await asyncio.to_thread(body.read_bytes)
        kept, count, held = await self._script(
            ADD, job.id, job.model, job.to_json(), content, job.held, self._bounds.count, self._bounds.bytes, self._age
        )
        if not kept:
            self._bounds.check(count, held, job.held)

    async def get(self, job_id: str) -> Job | None:
        fields = ("state", "attempt", "record")
        state, attempt, record = await _told(self._client.hmget(PLACE + job_id.encode(), *fields))
        # Between being taken and the first word of its worker only Redis knows that a job runs.
        return record and replace(Job.from_json(record), state=state.decode(), attempt=int(attempt))

    async def take(self, models: Sequence[str]) -> tuple[Job, bytes] | None:
        while True:
            found = await self._script(TAKE, LEASE_S, *models)
            if not found:
                return None
            record, attempt, body = found
            job = replace(Job.from_json(record), attempt=attempt - 1).taken(time.time())
            if job.state == RUNNING:
                return job, body
            job = replace(job, attempt=attempt)
            if await self.finish(job, b""):
                self.ended(job)

    async def hold(self, job: Job) -> bool:
        return bool(await self._script(HOLD, job.id, job.model, job.attempt, job.to_json(), LEASE_S))

    async def give_back(self, job: Job) -> None:
        await self._script(GIVE_BACK, job.id, job.model, job.attempt, job.returned().to_json())

    async def finish(self, job: Job, result: bytes) -> bool:
        before, most = job.body_bytes, self._bounds.bytes
        values = (job.id, job.model, job.attempt, job.to_json(), job.state, result, before, job.held, most, self._age)
        kept, held = await self._script(FINISH, *values)
        if kept < 0:
            self._bounds.check_bytes(held, job.held)
        return kept > 0

    async def result(self, job: Job) -> bytes | None:
        found: bytes | None = await _told(self._client.get(PLACE + job.id.encode() + b":result"))
        return found

    async def remove(self, job: Job) -> Job:
        left = removed(job, time.time())
        canceled = await self._script(REMOVE, job.id, job.model, left.to_json())
        return left if canceled or job.state not in OPEN else await self.get(job.id) or job

    async def open_jobs(self) -> list[OpenJob]:
        found = await self._script(LOOK)
        return [OpenJob(model.decode(), state.decode(), float(submitted)) for model, state, submitted in found]

    async def sweep(self) -> None:
        await self._script(SWEEP, self._age)

    async def close(self) -> None:
        await self._client.aclose()


async def _told(asked: Awaitable[Any]) -> Any:
    """Return what Redis answers; raises OSError, without the address, when it doesn't."""
    try:
        return await asked
    except Exception as error:  # noqa: BLE001 - of the network, of the protocol, of a script: it isn't there
        raise OSError(f"Redis: {error_name(error)}") from None
