"""A model in Python in service: batches, poison, a crash in the middle, readiness, and loaded again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from hone import store
from hone.artifact import Selection
from hone.services.routes.hub import Hub
from tests.models import python as model
from tests.models.python import python_artifact, python_recipe
from tests.services.arms.serving import Worker


def test_a_crash_costs_its_batch_and_readiness_until_the_model_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = python_artifact(tmp_path, python_recipe(tmp_path / "recipe"), timeout_s=60)
    ranked = Selection(run="20260101-000000-0000", rank=0, eligible=True)
    store.put(artifact.with_manifest(variant="python-process", selection=ranked), "code", "python-process-1")
    monkeypatch.setattr("hone.apart.pool.WAITS_S", (1000.0,))  # what ends stays away, for as long as this test looks

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        async def predict(value: float) -> httpx.Response:
            return await client.post("/predict", json={"inputs": {"x": [[0, value]]}})

        answers = await asyncio.gather(*(predict(value) for value in range(20)))
        assert [answer.json()["outputs"]["y"] for answer in answers] == [[value] for value in range(20)]
        assert answers[0].json()["outputs"]["name"] == ["row of 0"]
        assert not hub.models()[0].loaded.plan.inline  # no call of it holds the event loop
        v2 = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [0, 5]}]}
        outputs = (await client.post("/v2/models/code/infer", json=v2)).json()["outputs"]
        assert [output["data"] for output in outputs] == [[5.0], ["row of 0"]]
        about = (await client.get("/v2/models/code")).json()
        assert about["platform"] == "python_fp32" and "slow Python" in about["parameters"]["remark"]

        refused, good = await asyncio.gather(
            client.post("/predict", json={"inputs": {"x": [[model.REFUSE, 0]]}}), predict(2)
        )
        assert refused.status_code == 400 and "x is out of range" in refused.text
        assert good.json()["outputs"]["y"] == [2]

        assert hub.ready and (await client.get("/v2/models/code/ready")).json()["ready"]
        ended = await client.post("/predict", json={"inputs": {"x": [[model.EXIT, 0]]}})
        assert ended.status_code == 500 and "the server's log says why" in ended.text
        assert not hub.ready and (await client.get("/v2/models/code/ready")).status_code == 503
        waits = await predict(3)
        assert waits.status_code == 503 and waits.headers["retry-after"]
        assert waits.json()["error"] == "the model's process is being started again"

        await hub.load("code")
        assert hub.ready and (await predict(4)).json()["outputs"]["y"] == [4]

    async def main() -> None:
        worker = await Worker(tmp_path, "code").start()
        transport = httpx.ASGITransport(worker)
        async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=60) as client:
            await ask(client, worker.hub)
        await worker.hub.close()

    asyncio.run(main())
