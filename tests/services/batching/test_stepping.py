"""Requests of many rows before steps: what they may take of memory, and what of them the event loop does."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from hone import store
from hone.artifact import Artifact
from hone.services.batching import padding, stepping
from hone.services.batching.scheduler import Scheduler
from hone.services.http.failures import BodyTooLargeError
from hone.services.routes.edge import Edge
from hone.services.routes.hub import Hub
from hone.services.settings import Settings
from hone.signature import TensorSpec
from tests.models.words import mean_of, words_artifact
from tests.plans import plan
from tests.services.test_steps import png, stepped

Ask = Callable[[httpx.AsyncClient, Hub], Awaitable[None]]
LONG = "a " * 64


def asked(artifact: Artifact, ask: Ask, **settings: Any) -> None:
    """Serve an artifact in this process and let a function ask it."""

    async def main() -> None:
        hub = Hub(Edge(Settings(**settings)), Scheduler(2))
        store.put(artifact, artifact.manifest.name, "onnx-fp32-1")
        await hub.load(artifact.manifest.name)

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await hub.routes[scope["path"]](scope, receive, send)

        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            await ask(client, hub)
        await hub.close()

    asyncio.run(main())


def test_short_texts_beside_a_long_one_are_refused_before_they_are_filled_up(tmp_path: Path) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        short = await client.post("/predict", json={"text": ["a"] * 4_000})
        assert short.status_code == 200, short.text
        mixed = await client.post("/predict", json={"text": ["a"] * 3_999 + [LONG]})
        assert mixed.status_code == 413
        assert mixed.json()["error"] == (
            "what the model takes would be about 6 MB, made of this request's rows, 2 MB are allowed; send fewer rows, "
            "long texts apart from short ones, or raise HONE_MAX_READ_MB"
        )

    asked(words_artifact(tmp_path / "a"), ask, max_read_mb=2.0, queue_rows=65_536)


def test_pictures_are_refused_before_one_is_looked_at_and_wait_for_each_others_memory(tmp_path: Path) -> None:
    spec = TensorSpec(name="x", shape=("batch", 1, 100, 100))
    step = {"image": {"output": "x", "size": [100, 100], "mode": "grayscale"}}
    held: list[int] = []

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        broken = base64.b64encode(b"not looked at").decode()
        answer = await client.post("/predict", json={"image": [broken] * 26})
        assert answer.status_code == 413
        assert answer.json()["error"].startswith("what the model takes would be about 1 MB, made of")
        served = hub.get("stepped")
        stepping, submit = served._stepping, served._lane.submit
        assert stepping is not None

        async def watched(*arguments: Any, **options: Any) -> Any:
            held.append(1_000_000 - stepping._made._left)
            return await submit(*arguments, **options)

        served._lane.submit = watched  # type: ignore[method-assign]
        body = {"image": np.array([png((3, 3), 9)] * 10 + [None], object)[:-1]}
        answers = await asyncio.gather(*(served.infer(body) for _ in range(8)))
        assert {one["copy"].shape for one in answers} == {(10, 1, 100, 100)}

    asked(stepped(tmp_path / "a", spec, [step]), ask, max_read_mb=1.0)
    assert len(held) == 8 and max(held) == 800_000, "400 kB each"


def test_callers_whose_rows_would_be_too_much_together_are_answered_one_by_one(tmp_path: Path) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        served = hub.get("words")
        callers = [np.array(["a"] * 2_000, object), np.array([LONG], object)]
        many, one = await asyncio.gather(*(served.infer({"text": texts}) for texts in callers))
        np.testing.assert_allclose(many["embedding"], [mean_of("a")] * 2_000, rtol=1e-5)
        np.testing.assert_allclose(one["embedding"], [mean_of("a")], rtol=1e-5)

    asked(words_artifact(tmp_path / "a"), ask, max_read_mb=1.0)


def test_outputs_that_would_be_too_much_are_not_computed(tmp_path: Path) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        served, rows = hub.get("words"), 700
        ran: list[int] = []
        served._lane.submit = lambda made, *_: ran.append(len(made))  # type: ignore[assignment,method-assign]
        ids = np.ones((rows, 64), np.int64)
        for inputs in ({"text": np.array([LONG] * rows, object)}, {"input_ids": ids, "attention_mask": ids}):
            with pytest.raises(BodyTooLargeError, match=r"^the answer to this request would take about 2 MB"):
                await served.infer(inputs)
        assert not ran

    each = words_artifact(tmp_path / "a", each=True)
    asked(each, ask, max_read_mb=1.5)  # a token takes 24 bytes as the steps make it, and 48 as an answer


def test_many_texts_are_grouped_by_length_in_a_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []

    def watched(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return padding.part_of(*arguments)

    monkeypatch.setattr(stepping, "part_of", watched)
    texts = ["good film", LONG] * 1_000

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        many = await client.post("/predict", json={"text": texts})
        expected = np.stack([mean_of("good", "film"), mean_of("a")] * 1_000)
        np.testing.assert_allclose(many.json()["outputs"]["embedding"], expected, rtol=1e-5)
        assert len(threads) == 2 and all(name.startswith("steps") for name in threads)

    artifact = words_artifact(tmp_path / "a")
    padding_plan = plan(model="words:onnx-fp32-1", digest=artifact.digest, pad=True)
    asked(artifact, ask, plan=padding_plan.model_dump_json())
