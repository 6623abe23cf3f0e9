"""A job's batches: what is kept of them, what happens when the version changes between two, and how they are joined."""

from __future__ import annotations

import asyncio
import weakref
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from hone import store
from hone.lifecycle.feedback.joined import joined
from hone.services.feedback.collector import Collector
from hone.services.http.failures import BodyTooLargeError
from hone.services.http.limits import Limits
from hone.services.jobs.parts import Parts
from hone.services.routes.hub import Hub
from hone.services.routes.served import ServedModel
from hone.signature import Tensors
from tests.models.dense import dense_answer, dense_artifact
from tests.models.words import WIDTH, mean_of, vectors, words_artifact
from tests.services.jobs.serving import ended, serve

ROWS = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
TEXTS = [" ".join(["good", "film", "a", "very"][: 1 + row % 4] * (1 + row // 8)) for row in range(30)]
DENSE, WORDS = "/models/dense/jobs", "/models/words/jobs"


def put_dense(folder: Path, number: int) -> None:
    artifact = dense_artifact(folder / f"dense-{number}", seed=number, run=str(number))
    store.put(artifact, "dense", f"onnx-fp32-{number}")


def put_words(folder: Path, **options: Any) -> None:
    store.put(words_artifact(folder / "words", **options), "words", "onnx-fp32-1")


class Held:
    """A version that stands still behind its first batch of a job, until it is let go."""

    def __init__(self, served: ServedModel) -> None:
        self.computed, self.go = asyncio.Event(), asyncio.Event()
        self._infer = served.infer_behind
        served.infer_behind = self._held  # type: ignore[method-assign]

    async def _held(self, inputs: Tensors) -> Tensors:
        outputs = await self._infer(inputs)
        self.computed.set()
        await self.go.wait()
        return outputs


async def submitted(client: httpx.AsyncClient, path: str, inputs: dict[str, Any]) -> str:
    answer = await client.post(path, json={"inputs": inputs})
    assert answer.status_code == 202, answer.text
    return answer.headers["location"]


async def result(client: httpx.AsyncClient, place: str) -> dict[str, np.ndarray]:
    outputs = (await client.get(f"{place}/result")).json()["outputs"]
    return {name: np.array(values) for name, values in outputs.items()}


def test_all_rows_are_answered_by_the_version_that_comes_while_a_job_runs(tmp_path: Path) -> None:
    put_dense(tmp_path, 1)
    put_dense(tmp_path, 2)

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        held = Held(hub.get("dense"))
        place = await submitted(client, DENSE, {"features": ROWS.tolist()})
        await held.computed.wait()
        await hub.load("dense:onnx-fp32-2")
        held.go.set()
        told = await ended(client, place)
        assert (told["status"], told["attempt"]) == ("done", 1), told
        assert told["answered_by"] == "dense:onnx-fp32-2"
        found = (await result(client, place))["scores"]
        np.testing.assert_allclose(found, dense_answer(ROWS, seed=2), rtol=1e-4)

    serve(tmp_path, "dense:onnx-fp32-1", ask, max_batch_rows=8)


def test_a_job_waits_for_a_model_that_is_gone_until_it_is_back(tmp_path: Path) -> None:
    put_dense(tmp_path, 1)

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        held = Held(hub.get("dense"))
        place = await submitted(client, DENSE, {"features": ROWS.tolist()})
        await held.computed.wait()
        await hub.unload("dense")
        held.go.set()
        while (told := (await client.get(place)).json())["status"] == "running":
            await asyncio.sleep(0.01)
        assert (told["status"], told.get("rows"), told.get("answered_by")) == ("queued", None, None)
        await hub.load("dense")
        assert (await ended(client, place))["status"] == "done"
        np.testing.assert_allclose((await result(client, place))["scores"], dense_answer(ROWS, seed=1), rtol=1e-4)

    serve(tmp_path, "dense", ask, max_batch_rows=8)


def test_a_version_answers_the_batch_that_waits_for_it_before_it_leaves(tmp_path: Path) -> None:
    put_dense(tmp_path, 1)

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        served = hub.get("dense")
        served._lane.flying += 1  # as while it computes for a caller
        waiting = asyncio.create_task(served.infer_behind({"features": ROWS[:8]}))
        await asyncio.sleep(0)
        await hub.load("dense")
        await asyncio.sleep(0.1)
        served._lane.flying -= 1
        np.testing.assert_allclose((await waiting)["scores"], dense_answer(ROWS[:8], seed=1), rtol=1e-4)

    serve(tmp_path, "dense", ask, max_batch_rows=8)


def test_no_more_than_the_answers_is_kept_of_a_jobs_batches(tmp_path: Path) -> None:
    put_words(tmp_path)
    alive: list[int] = []

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        served = hub.get("words")
        infer, made = served.infer_behind, []

        async def watched(inputs: Tensors) -> Any:
            answer: Any = await infer(inputs)
            made.append(weakref.ref(answer.inputs["input_ids"]))
            alive.append(sum(one() is not None for one in made))
            return answer

        served.infer_behind = watched  # type: ignore[method-assign]
        place = await submitted(client, WORDS, {"text": TEXTS})
        assert (await ended(client, place))["status"] == "done"
        expected = [mean_of(*text.split()) for text in TEXTS]
        np.testing.assert_allclose((await result(client, place))["embedding"], expected, rtol=1e-4)

    serve(tmp_path, "words", ask, max_batch_rows=4)
    assert len(alive) == 8 and max(alive) <= 2


def test_feedback_finds_the_models_outputs_of_a_job_as_of_a_request(tmp_path: Path) -> None:
    put_words(tmp_path, output="scores", post=({"top_k": {"k": 2}},))
    collector = Collector(tmp_path / "answers", flush_s=0.05)

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        hub.get("words")._edge.collector = collector
        place = await submitted(client, WORDS, {"text": TEXTS})
        assert (await ended(client, place))["status"] == "done"

    serve(tmp_path, "words", ask, max_batch_rows=4)
    collector.close()
    (noted,) = joined(tmp_path / "answers", "words")
    np.testing.assert_allclose(noted.outputs["scores"], [mean_of(*text.split()) for text in TEXTS], rtol=1e-4)


def test_an_answer_that_would_take_too_much_fails_its_job(tmp_path: Path) -> None:
    put_dense(tmp_path, 1)

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        head = {"content-type": "application/octet-stream", "accept": "application/json"}
        place = (await client.post(DENSE, content=ROWS.tobytes(), headers=head)).headers["location"]
        told = await ended(client, place)
        assert (told["status"], told["error_status"], told["rows_done"]) == ("failed", 413, 0)
        assert told["error"].startswith("the answer to this request would take about 0 MB of memory")

    serve(tmp_path, "dense", ask, max_batch_rows=8, max_read_mb=0.0025, max_body_mb=1.0, jobs_body_mb=1.0)


def test_rows_of_several_lengths_are_computed_a_batch_at_a_time_and_filled_up_behind(tmp_path: Path) -> None:
    put_words(tmp_path, each=True)
    sizes: list[tuple[int, ...]] = []

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        served = hub.get("words")
        infer = served.infer_behind

        async def watched(inputs: Tensors) -> Any:
            answer: Any = await infer(inputs)
            sizes.append(answer.inputs["input_ids"].shape)
            return answer

        served.infer_behind = watched  # type: ignore[method-assign]
        place = await submitted(client, WORDS, {"text": TEXTS})
        told = await ended(client, place)
        assert (told["status"], told["rows_done"]) == ("done", len(TEXTS)), told
        expected = np.zeros((len(TEXTS), 16, WIDTH))
        for row, text in enumerate(TEXTS):
            words = [mean_of(word) for word in text.split()]
            expected[row, : len(words)] = words
        np.testing.assert_allclose((await result(client, place))["embedding"], expected, rtol=1e-4)

    serve(tmp_path, "words", ask, max_batch_rows=8)
    assert sizes == [(8, 4), (8, 8), (8, 12), (6, 16)]


def test_a_batch_that_a_request_could_not_take_is_computed_in_halves(tmp_path: Path) -> None:
    put_words(tmp_path, each=True)
    texts = ["good film " * 32] * 9

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        place = await submitted(client, WORDS, {"text": texts})
        told = await ended(client, place)
        assert (told["status"], told["rows_done"]) == ("done", 9), told
        wanted = np.tile(vectors()[[2, 4] * 32], (9, 1, 1))
        np.testing.assert_allclose((await result(client, place))["embedding"], wanted, rtol=1e-4)
        refused = await client.post("/predict", json={"text": texts})
        assert refused.status_code == 413

    serve(tmp_path, "words", ask, max_batch_rows=8, max_read_mb=0.01, max_body_mb=0.01, jobs_body_mb=1.0)


def test_parts_are_bounded_by_the_whole_answer() -> None:
    parts = Parts(Limits(memory=1_000_000), 1_000, text=False)
    parts.add({"y": np.zeros((10, 100), np.float32)}, {})  # all of them: 2 x 400 kB
    with pytest.raises(BodyTooLargeError, match="the answer to this request would take about 2 MB"):
        parts.add({"y": np.zeros((10, 200), np.float32)}, {})


def test_names_of_several_lengths_are_filled_up_with_empty_ones() -> None:
    parts = Parts(Limits(), 3, text=True)
    parts.add({"tag": np.array([["a"], ["b"]], object)}, {})
    parts.add({"tag": np.array([["c", "d"]], object)}, {})
    assert parts.joined()["tag"].tolist() == [["a", ""], ["b", ""], ["c", "d"]]
