"""Jobs over HTTP: asked of a worker's endpoints in this process."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from hone import store
from hone.services.access.api_keys import add_key
from hone.services.access.gate import make_gate
from hone.services.batching.scheduler import Scheduler
from hone.services.jobs.assembly import WorkerJobs
from hone.services.routes.edge import Edge
from hone.services.routes.hub import Hub
from hone.services.routes.paths import job_path
from hone.services.settings import Settings
from tests.models.dense import dense_answer, dense_artifact
from tests.plans import plan

ROWS = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
PATH = "/models/dense/jobs"
Ask = Callable[[httpx.AsyncClient, Hub], Awaitable[None]]


@pytest.fixture
def asked(tmp_path: Path, home: Path) -> Callable[..., None]:
    """Return a function that serves the dense model with jobs, and lets a test ask."""
    artifact = dense_artifact(tmp_path / "artifact")
    tag = store.put(artifact, "dense", "onnx-fp32-1").tag
    given = plan(model=tag, digest=artifact.digest, max_batch_rows=8).model_dump_json()

    def run(ask: Ask, **settings: Any) -> None:
        async def main() -> None:
            edge = Edge(Settings(**{"plan": given, "jobs_dir": str(tmp_path / "jobs"), **settings}))
            edge.gate = make_gate(edge.settings, tmp_path)
            hub = Hub(edge, Scheduler(2))
            await hub.load("dense")
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

    return run


async def ended(client: httpx.AsyncClient, place: str, **options: Any) -> dict[str, Any]:
    """Return a job's status once it is neither queued nor running."""
    while True:
        told: dict[str, Any] = (await client.get(place, **options)).json()
        if told["status"] not in ("queued", "running"):
            return told
        await asyncio.sleep(0.01)


def test_a_job_is_submitted_looked_at_read_and_thrown_away(asked: Callable[..., None]) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        submitted = await client.post(PATH, json={"inputs": {"features": ROWS.tolist()}})
        assert submitted.status_code == 202, submitted.text
        place = submitted.headers["location"]
        assert place == f"{PATH}/{submitted.json()['id']}"
        told = await ended(client, place)
        assert (told["status"], told["rows"], told["rows_done"]) == ("done", 100, 100)
        assert told["answered_by"] == "dense:onnx-fp32-1"
        result = await client.get(f"{place}/result")
        assert result.headers["content-type"] == "application/json"
        np.testing.assert_allclose(result.json()["outputs"]["scores"], dense_answer(ROWS), rtol=1e-5)
        assert (await client.delete(place)).json()["status"] == "deleted"
        assert (await client.get(place)).status_code == 404

    asked(ask)


def test_results_have_the_format_that_is_accepted_and_bodies_those_of_predict(asked: Callable[..., None]) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        headers = {"content-type": "application/octet-stream", "accept": "application/x-npy"}
        place = (await client.post(PATH, content=ROWS.tobytes(), headers=headers)).headers["location"]
        assert (await ended(client, place))["status"] == "done"
        result = await client.get(f"{place}/result")
        assert result.headers["content-type"] == "application/x-npy"
        np.testing.assert_allclose(np.load(io.BytesIO(result.content)), dense_answer(ROWS), rtol=1e-5)
        wrong = await client.post(PATH, content=b"", headers={"content-type": "text/html"})
        assert wrong.status_code == 415 and "application/x-npy" in wrong.json()["error"]
        wrong = await client.post(PATH, json={}, headers={"accept": "image/png"})
        assert wrong.status_code in (202, 406)
        wrong = await client.post(PATH, json={}, headers={"accept": "text/html"})
        assert wrong.status_code == 406 and "accept one of: application/json" in wrong.json()["error"]

    asked(ask)


def test_a_job_may_have_more_rows_than_a_request_and_is_bounded_all_the_same(asked: Callable[..., None]) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        body = {"inputs": {"features": ROWS.tolist()}}
        assert (await client.post("/models/dense/predict", json=body)).status_code == 413
        place = (await client.post(PATH, json=body)).headers["location"]
        assert (await ended(client, place))["status"] == "done"
        twice = {"inputs": {"features": [*ROWS.tolist()] * 2}}
        place = (await client.post(PATH, json=twice)).headers["location"]
        told = await ended(client, place)
        assert (told["status"], told["error_status"]) == ("failed", 413)
        result = await client.get(f"{place}/result")
        assert (result.status_code, result.json()["error"]) == (413, told["error"])
        large = await client.post(PATH, content=b" " * 200_000, headers={"content-type": "application/json"})
        assert large.status_code == 413 and "HONE_JOBS_BODY_MB" in large.json()["error"]

    asked(ask, max_rows=50, jobs_rows=150, jobs_body_mb=0.1)


def test_a_body_that_is_wrong_fails_as_a_request_would(asked: Callable[..., None], tmp_path: Path) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        place = (await client.post(PATH, json={"inputs": {"feature": [[1, 2, 3, 4]]}})).headers["location"]
        told = await ended(client, place)
        assert (told["status"], told["error_status"]) == ("failed", 400)
        assert "did you mean 'features'" in told["error"]
        for path in (f"{PATH}/{'0' * 32}", f"{PATH}/x", f"/models/other/jobs/{told['id']}", "/models/other/jobs"):
            method = "POST" if path.endswith("jobs") else "GET"
            answer = await client.request(method, path, json={})
            assert answer.status_code == 404, path
        assert (await client.put(place)).status_code == 405
        assert (await client.get(PATH)).status_code == 405
        assert not [*(tmp_path / "jobs").glob("*.incoming")]

    asked(ask)


def test_there_is_room_for_so_many_jobs(asked: Callable[..., None], tmp_path: Path) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        hub.draining = True  # so that none is computed
        places = [(await client.post(PATH, json={})).headers["location"] for _ in range(2)]
        full = await client.post(PATH, json={})
        assert full.status_code == 503 and full.headers["retry-after"]
        assert full.json()["error"] == "2 jobs are kept, 2 may be; get results and delete them"
        early = await client.get(f"{places[0]}/result")
        assert (early.status_code, early.json()["error"]) == (409, "the job is queued; it has no result yet")
        assert (await client.delete(places[0])).json()["status"] == "canceled"
        assert (await client.get(f"{places[0]}/result")).status_code == 409
        assert (await client.delete(places[0])).json()["status"] == "deleted"
        assert (await client.post(PATH, json={})).status_code == 202
        assert not [*(tmp_path / "jobs").glob("*.incoming")]

    asked(ask, jobs_most=2)


def test_bodies_on_their_way_take_room_too(asked: Callable[..., None], tmp_path: Path) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        hub.draining = True
        goes_on = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b" " * 600_000
            await goes_on.wait()
            yield b"{}"

        kind = {"content-type": "application/json"}
        first = asyncio.create_task(client.post(PATH, content=slow(), headers=kind))
        while not [*(tmp_path / "jobs").glob("*.incoming")]:
            await asyncio.sleep(0.01)
        refused = await client.post(PATH, content=b" " * 600_000 + b"{}", headers=kind)
        assert refused.status_code == 503 and refused.json()["error"].startswith(
            "jobs hold 0.6 MB of 1, and this takes"
        )
        goes_on.set()
        assert (await first).status_code == 202
        assert not [*(tmp_path / "jobs").glob("*.incoming")]

    asked(ask, jobs_mb=1.0)


def test_only_the_key_that_submitted_a_job_finds_it(asked: Callable[..., None], tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    mine = {"x-api-key": add_key(keys, "mine", ("predict:dense",))}
    other = {"x-api-key": add_key(keys, "other", ("predict", "admin"))}
    reader = {"x-api-key": add_key(keys, "reader", ("read",))}

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        body = {"inputs": {"features": ROWS.tolist()}}
        assert (await client.post(PATH, json=body)).status_code == 401
        assert (await client.post(PATH, json=body, headers=reader)).status_code == 403
        place = (await client.post(PATH, json=body, headers=mine)).headers["location"]
        assert (await ended(client, place, headers=mine))["status"] == "done"
        for path in (place, f"{place}/result"):
            assert (await client.get(path)).status_code == 401
            assert (await client.get(path, headers=other)).status_code == 404
        assert (await client.delete(place, headers=other)).status_code == 404
        assert (await client.get(f"{place}/result", headers=mine)).status_code == 200

    asked(ask, api_keys=str(keys))


def test_callers_who_wait_are_answered_before_a_job_goes_on(asked: Callable[..., None]) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        served, order = hub.get("dense"), []

        async def note(what: str, answer: Awaitable[Any]) -> None:
            await answer
            order.append(what)

        live = asyncio.create_task(note("live", served.infer({"features": ROWS[:1]})))
        await asyncio.sleep(0)
        behind = asyncio.create_task(note("behind", served.infer_behind({"features": ROWS[:1]})))
        await asyncio.gather(behind, live)
        assert order == ["live", "behind"]

    asked(ask)


def test_a_worker_that_stops_gives_its_job_back(asked: Callable[..., None]) -> None:
    places = []

    async def first(client: httpx.AsyncClient, hub: Hub) -> None:
        served = hub.get("dense")

        async def never(inputs: Any) -> Any:
            await asyncio.Event().wait()

        served.infer_behind = never  # type: ignore[method-assign]
        places.append((await client.post(PATH, json={"inputs": {"features": ROWS.tolist()}})).headers["location"])
        while (await client.get(places[0])).json()["status"] != "running":
            await asyncio.sleep(0.01)

    async def second(client: httpx.AsyncClient, hub: Hub) -> None:
        told = await ended(client, places[0])
        assert (told["status"], told["attempt"]) == ("done", 1)

    asked(first)
    asked(second)
