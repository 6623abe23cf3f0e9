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
from prometheus_client import REGISTRY

from hone import store
from hone.lifecycle.feedback.joined import joined
from hone.services.access.api_keys import add_key
from hone.services.feedback.collector import Collector
from hone.services.jobs import runner
from hone.services.observe.recording import Recorder, read
from hone.services.routes.hub import Hub
from tests.models.dense import dense_answer, dense_artifact
from tests.plans import plan
from tests.services.jobs.serving import Ask, ended, serve

ROWS = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
PATH = "/models/dense/jobs"


@pytest.fixture
def asked(tmp_path: Path, home: Path) -> Callable[..., None]:
    """Return a function that serves the dense model with jobs, and lets a test ask."""
    artifact = dense_artifact(tmp_path / "artifact")
    tag = store.put(artifact, "dense", "onnx-fp32-1").tag
    given = plan(model=tag, digest=artifact.digest, max_batch_rows=8).model_dump_json()

    def run(ask: Ask, **settings: Any) -> None:
        serve(tmp_path, "dense", ask, **{"plan": given, **settings})

    return run


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


def figures(metrics: str, name: str) -> dict[str, float]:
    """Return the samples of one family in the process, of the model that is served here, by their other label."""
    return {
        next((value for label, value in sample.labels.items() if label != "model"), ""): sample.value
        for family in REGISTRY.collect()
        if family.name == metrics
        for sample in family.samples
        if sample.name == name and sample.labels.get("model") == "dense"
    }


def test_jobs_are_counted_by_how_they_end_and_shown_while_they_are_open(
    asked: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SHOW_S", 0.01)
    ended_before = figures("hone_jobs_ended", "hone_jobs_ended_total")
    rows_before = figures("hone_job_rows", "hone_job_rows_total").get("", 0.0)

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        good, wrong = ({"inputs": {name: ROWS.tolist()}} for name in ("features", "feature"))
        for body in (good, wrong):
            await ended(client, (await client.post(PATH, json=body)).headers["location"])
        hub.draining = True
        waits = (await client.post(PATH, json=good)).headers["location"]
        while figures("hone_jobs", "hone_jobs") != {"queued": 1.0, "running": 0.0}:
            await asyncio.sleep(0.01)
        assert figures("hone_jobs_oldest_seconds", "hone_jobs_oldest_seconds")[""] < 60
        await client.delete(waits)
        while figures("hone_jobs", "hone_jobs")["queued"]:
            await asyncio.sleep(0.01)

    asked(ask)
    found = figures("hone_jobs_ended", "hone_jobs_ended_total")
    more = {result: count - ended_before.get(result, 0.0) for result, count in found.items()}
    assert more == {"done": 1.0, "refused": 1.0, "canceled": 1.0}
    assert figures("hone_job_rows", "hone_job_rows_total")[""] == rows_before + 100


def test_rows_of_a_job_are_recorded_sketched_and_noted_as_those_of_requests(
    asked: Callable[..., None], tmp_path: Path
) -> None:
    recorder = Recorder(tmp_path / "recorded", complete=True)
    collector = Collector(tmp_path / "answers", flush_s=0.05)
    followed: list[int] = []
    ids: list[str] = []

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        served = hub.get("dense")
        served._edge.recorder, served._edge.collector = recorder, collector
        served.metrics.sample = lambda inputs, _: followed.append(len(inputs["features"]))  # type: ignore[method-assign]
        headers = {"x-customer": "anna"}
        place = (await client.post(PATH, json={"inputs": {"features": ROWS.tolist()}}, headers=headers)).headers
        told = await ended(client, place["location"])
        ids.append(told["id"])

    asked(ask, subject_header="x-customer")
    recorder.close()
    collector.close()
    found = read(tmp_path / "recorded", "dense").sort_by("row").to_pydict()
    assert {*found["request_id"]} == {*ids} and found["row"] == [*range(100)]
    np.testing.assert_allclose(found["output.scores"], dense_answer(ROWS), rtol=1e-5)
    assert sum(followed) >= 8 and max(followed) == 8, "a batch is what a request is"
    (noted,) = joined(tmp_path / "answers", "dense")
    assert noted.request_id == ids[0] and noted.unit and "anna" not in noted.unit


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
