"""What keeps jobs, in a folder and in Redis: taken once at a time, again after a worker's end, finished once."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hone.errors import HoneError
from hone.services.jobs import folder_store, redis_store
from hone.services.jobs.folder_store import FolderStore
from hone.services.jobs.record import DONE, MOST_ATTEMPTS, Bounds, Job, JobsFullError, JobStore, new_id
from hone.services.jobs.redis_store import RedisStore
from hone.services.launch import free_port
from tests.servers import redis

Use = Callable[[JobStore], Awaitable[None]]
Keeps = Callable[..., None]


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    port = free_port()
    with redis(port):
        yield f"redis://127.0.0.1:{port}"


@pytest.fixture(params=["folder", "redis"])
def keeps(request: pytest.FixtureRequest, tmp_path: Path) -> Keeps:
    """Return a function that lets a test use an empty store."""

    def run(use: Use, count: int = 10, held: int = 1000, age_s: float = 60.0) -> None:
        bounds = Bounds(count, held, age_s)

        async def main() -> None:
            if request.param == "folder":
                store: JobStore = FolderStore(tmp_path / "jobs", bounds)
            else:
                store = RedisStore(request.getfixturevalue("redis_url"), tmp_path / "jobs", bounds)
                await store._client.flushall()  # type: ignore[attr-defined]
            await use(store)
            await store.close()

        asyncio.run(main())

    return run


def expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let leases end as they begin."""
    monkeypatch.setattr(folder_store, "LEASE_S", -1.0)
    monkeypatch.setattr(redis_store, "LEASE_S", -1.0)


async def add(store: JobStore, body: bytes = b"rows", model: str = "dense") -> Job:
    file = store.folder / f"{new_id()}.incoming"
    file.write_bytes(body)
    job = Job(new_id(), model, "me", {"accept": "x"}, len(body), time.time(), time.time())
    await store.add(job, file)
    return job


def done(job: Job, result: bytes) -> Job:
    return replace(job, state=DONE, fields=(("content-type", "x"),), result_bytes=len(result))


def test_a_job_is_taken_by_one_and_finished_once(keeps: Keeps) -> None:
    async def use(store: JobStore) -> None:
        first, second = await add(store, b"one"), await add(store, b"two")
        assert await store.take(["other"]) is None
        taken = [await store.take(["other", "dense"]) for _ in range(3)]
        assert [one and (one[0].id, one[1]) for one in taken] == [(first.id, b"one"), (second.id, b"two"), None]
        assert taken[0] is not None
        job = replace(taken[0][0], rows=9, rows_done=4)
        assert await store.hold(job)
        assert await store.get(job.id) == job
        assert await store.finish(done(job, b"result"), b"result")
        assert not await store.finish(done(job, b"again"), b"again")
        assert not await store.hold(job)
        found = await store.get(job.id)
        assert found is not None and found.state == DONE and found.fields == (("content-type", "x"),)
        assert await store.result(found) == b"result"

    keeps(use)


def test_jobs_that_are_not_done_are_told_with_their_age_and_lost_ones_once(
    keeps: Keeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(store: JobStore) -> None:
        lost: list[Job] = []
        store.ended = lost.append  # type: ignore[method-assign]
        first, _, other = await add(store), await add(store), await add(store, model="other")
        assert await store.take(["other"])
        found = await store.open_jobs()
        states = [("dense", "queued"), ("dense", "queued"), ("other", "running")]
        assert sorted((one.model, one.state) for one in found) == states
        assert min(one.submitted for one in found) == pytest.approx(first.submitted, abs=0.01)
        expire(monkeypatch)
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("hone.services.jobs.record.MOST_ATTEMPTS", 1)
            assert await store.take(["dense"]) and await store.take(["dense"])
            assert await store.take(["dense"]) is None
        assert {one.model for one in lost} == {"dense"} and len(lost) == 2 and lost[0].error_status == 500
        assert [one.model for one in await store.open_jobs()] == [other.model]

    keeps(use)


def test_a_job_whose_worker_ended_is_taken_again_and_has_one_result(
    keeps: Keeps, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def use(store: JobStore) -> None:
        await add(store)
        with monkeypatch.context() as patched:
            expire(patched)
            dead = await store.take(["dense"])
        alive = await store.take(["dense"])
        assert dead and alive and (dead[0].attempt, alive[0].attempt) == (1, 2) and alive[1] == b"rows"
        assert not await store.hold(dead[0])
        assert await store.take(["dense"]) is None
        assert await store.finish(done(alive[0], b"alive"), b"alive")
        assert not await store.finish(done(dead[0], b"dead"), b"dead")
        found = await store.get(alive[0].id)
        assert found is not None and await store.result(found) == b"alive"
        assert len([*store.folder.glob("*.result")]) <= 1

    keeps(use)


def test_a_job_that_ends_its_workers_fails(keeps: Keeps, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(store: JobStore) -> None:
        job = await add(store)
        expire(monkeypatch)
        for attempt in range(MOST_ATTEMPTS):
            taken = await store.take(["dense"])
            assert taken is not None and taken[0].attempt == attempt + 1
        assert await store.take(["dense"]) is None
        found = await store.get(job.id)
        assert found is not None and found.told()["error"] == "the worker that computed it ended, 3 times"

    keeps(use)


def test_what_is_given_back_is_as_if_never_taken(keeps: Keeps) -> None:
    async def use(store: JobStore) -> None:
        job = await add(store)
        taken = await store.take(["dense"])
        assert taken is not None
        await store.give_back(taken[0])
        back = await store.get(job.id)
        assert back is not None and replace(back, changed=job.changed) == job
        again = await store.take(["dense"])
        assert again is not None and again[0].attempt == 1

    keeps(use)


def test_canceling_takes_a_job_from_its_worker_and_then_throws_it_away(keeps: Keeps) -> None:
    async def use(store: JobStore) -> None:
        queued, running = await add(store), await add(store)
        await store.remove(queued)
        taken = await store.take(["dense"])
        assert taken is not None and taken[0].id == running.id
        assert (await store.remove(taken[0])).state == "canceled"
        assert not await store.hold(taken[0])
        assert not await store.finish(done(taken[0], b"late"), b"late")
        for job in (queued, running):
            left = await store.get(job.id)
            assert left is not None and left.state == "canceled" and left.held == 0
            await store.remove(left)
            assert await store.get(job.id) is None

    keeps(use)


def test_there_is_room_for_so_many_jobs_and_bytes(keeps: Keeps) -> None:
    async def use(store: JobStore) -> None:
        job = await add(store, b"x" * 40)
        with pytest.raises(JobsFullError, match=r"jobs hold 0\.0 MB of 0\.0001"):
            await add(store, b"x" * 61)
        taken = await store.take(["dense"])
        assert taken is not None
        with pytest.raises(JobsFullError):
            await store.finish(done(taken[0], b"x" * 101), b"x" * 101)
        assert await store.finish(done(taken[0], b"x" * 100), b"x" * 100)
        await store.remove(replace(job, state=DONE))
        await add(store, b"x" * 50)
        await add(store, b"x" * 50)
        with pytest.raises(JobsFullError, match="2 jobs are kept, 2 may be"):
            await add(store, b"")

    keeps(use, count=2, held=100)


def test_old_jobs_are_thrown_away(keeps: Keeps) -> None:
    async def use(store: JobStore) -> None:
        job = await add(store)
        await store.sweep()
        assert await store.get(job.id) == job
        store._bounds = Bounds(10, 1000, -1.0)  # type: ignore[attr-defined]
        store._age = -1  # type: ignore[attr-defined]
        await store.sweep()
        assert await store.get(job.id) is None
        assert await store.take(["dense"]) is None
        assert not [*store.folder.glob("*.body")]

    keeps(use)


def test_jobs_are_kept_over_a_restart(tmp_path: Path) -> None:
    bounds = Bounds(10, 1000, 60.0)
    job = asyncio.run(add(FolderStore(tmp_path, bounds)))
    taken = asyncio.run(FolderStore(tmp_path, bounds).take(["dense"]))
    assert taken is not None and taken[0].id == job.id


def test_a_folder_that_cant_hold_jobs_is_said(tmp_path: Path) -> None:
    (tmp_path / "jobs.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(HoneError, match=r"jobs.sqlite: can't be used for jobs: file is not a database"):
        FolderStore(tmp_path, Bounds(1, 1, 1.0))


def test_redis_that_is_gone_is_an_error_without_its_address(tmp_path: Path) -> None:
    store = RedisStore(f"redis://:secret@127.0.0.1:{free_port()}", tmp_path, Bounds(1, 1, 1.0))

    async def main() -> None:
        for asked in (store.take(["dense"]), store.get("0" * 32)):
            with pytest.raises(OSError, match=r"^Redis: ConnectionError$"):
                await asked
        await store.close()

    asyncio.run(main())
