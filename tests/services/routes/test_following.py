"""Services that follow an alias of the registry: in workers that share a folder, and in a server under load."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from hone import store
from hone.audit import AuditLog
from hone.services.batching.scheduler import Scheduler
from hone.services.models.desired import DesiredState
from hone.services.models.followed import Followed
from hone.services.routes.edge import Edge
from hone.services.routes.hub import Hub
from hone.services.routes.repository import Repository
from hone.services.settings import Settings
from hone.store.registry import change, file_of, pointer_to
from tests.models.dense import dense_answer, dense_artifact
from tests.servers import HONE, put, server, use_store
from tests.services.test_operations import Load

ROW = {"features": np.arange(4, dtype=np.float32).reshape(1, 4)}
VERSIONS = ("a", "b", "c")


@pytest.fixture
def three(tmp_path: Path) -> None:
    for seed, version in enumerate(VERSIONS):
        store.put(dense_artifact(tmp_path / version, variant=version, seed=seed), "dense", version)


def point(**aliases: str) -> None:
    pointers = {alias: pointer_to(store.resolve(f"dense:{version}")) for alias, version in aliases.items()}
    change("dense", lambda before: before.pointing(pointers))


class Worker:
    """A worker without sockets, which was started with some references."""

    def __init__(self, folder: Path, *references: str) -> None:
        self.edge = Edge(Settings(threads=1, in_flight=1, max_batch_rows=8), audit=AuditLog(folder / "audit.jsonl"))
        self.hub = Hub(self.edge, Scheduler(1), folder=folder)
        self._references = references
        self.repository = Repository(self.hub, self.edge, DesiredState(folder), Followed(references))

    async def start(self) -> Worker:
        for reference in reversed(self._references):
            await self.hub.load(store.resolve(reference).tag, keep=True)
        await self.repository.catch_up()
        return self

    async def serves(self) -> list[str]:
        """Return the versions that are loaded, the one that answers `/predict` first, which is asked."""
        newest = self.hub.get("dense")
        got = (await newest.infer(ROW))["scores"]
        np.testing.assert_allclose(
            got, dense_answer(ROW["features"], VERSIONS.index(newest.entry.version)), rtol=1e-5, atol=1e-5
        )
        return [newest.entry.version, *(v for v in self.hub.versions("dense") if v != newest.entry.version)]


@pytest.mark.usefixtures("three")
def test_promotion_and_rollback_reach_every_worker(tmp_path: Path) -> None:
    async def main() -> None:
        point(champion="a")
        workers = [await Worker(tmp_path / "shared", "dense@champion").start() for _ in range(2)]
        for version in ("b", "c", "a"):
            point(champion=version)
            for _ in range(2):
                for worker in workers:
                    await worker.repository.catch_up()
            assert [await worker.serves() for worker in workers] == [[version], [version]]
        for worker in workers:
            await worker.hub.close()

    asyncio.run(main())
    log = [json.loads(line) for line in (tmp_path / "shared" / "audit.jsonl").read_text().splitlines()]
    # One worker acts, and is recorded; the other follows it.
    assert [(one["actor"], one["subject"]) for one in log if one["outcome"] == "done"] == [
        ("registry:dense@champion", f"dense:{version}") for version in ("b", "c", "a")
    ]


@pytest.mark.usefixtures("three")
def test_two_aliases_of_a_model_are_served_beside_each_other(tmp_path: Path) -> None:
    async def main() -> None:
        point(champion="b", previous="a")
        worker = await Worker(tmp_path / "shared", "dense@champion", "dense@previous").start()
        assert await worker.serves() == ["b", "a"]
        for champion, previous in (("c", "b"), ("b", "a"), ("a", "b")):
            point(champion=champion, previous=previous)
            await worker.repository.catch_up()
            assert await worker.serves() == [champion, previous]
        await worker.hub.close()

    asyncio.run(main())


@pytest.mark.usefixtures("three")
def test_version_that_cant_be_loaded_leaves_what_serves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        point(champion="a")
        worker = await Worker(tmp_path / "shared", "dense@champion").start()
        point(champion="b")
        model = store.resolve("dense:b").path / "model.onnx"
        model.write_bytes(model.read_bytes()[:-1])
        await worker.repository.catch_up()
        assert await worker.serves() == ["a"]
        point(champion="c")
        await worker.repository.catch_up()
        assert await worker.serves() == ["c"]
        await worker.hub.close()

    asyncio.run(main())
    assert "what 'dense' means in the registry is not served" in caplog.text
    assert "model.onnx: corrupt" in caplog.text


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize("how", ["broken", "gone", "no folder"])
def test_registry_that_is_down_leaves_what_serves(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        point(champion="a")
        worker = await Worker(tmp_path / "shared", "dense@champion").start()
        file, aside = file_of("dense"), tmp_path / "aside"
        if how == "no folder":
            file.parent.rename(aside)
        elif how == "gone":
            file.unlink()
        else:
            file.write_text("{")
        for _ in range(3):
            await worker.repository.catch_up()
            assert await worker.serves() == ["a"]
        if how == "no folder":
            aside.rename(file.parent)
        file.unlink(missing_ok=True)
        point(champion="b")
        await worker.repository.catch_up()
        assert await worker.serves() == ["b"]
        await worker.hub.close()

    asyncio.run(main())
    assert "dense@champion stays as it is" in caplog.text


@pytest.mark.usefixtures("three")
def test_alias_of_a_version_that_was_deleted_leaves_what_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        point(champion="a")
        worker = await Worker(tmp_path / "shared", "dense@champion").start()
        point(champion="b")
        shutil.rmtree(store.resolve("dense:b").path)
        await worker.repository.catch_up()
        assert await worker.serves() == ["a"]
        point(champion="c")
        await worker.repository.catch_up()
        assert await worker.serves() == ["c"]
        await worker.hub.close()

    asyncio.run(main())
    assert "dense@champion stays as it is" in caplog.text


@pytest.mark.usefixtures("three")
def test_what_was_loaded_by_hand_stays_beside_a_swap(tmp_path: Path) -> None:
    async def main() -> None:
        point(champion="a")
        worker = await Worker(tmp_path / "shared", "dense@champion").start()
        await worker.repository.load("somebody", "dense", {"version": "c", "keep": True})
        point(champion="b")
        await worker.repository.catch_up()
        assert await worker.serves() == ["b", "c"]
        await worker.hub.close()

    asyncio.run(main())


@pytest.mark.slow
def test_server_follows_under_load_without_a_failed_request(tmp_path: Path) -> None:
    home = tmp_path / "shop"
    use_store(home)
    for seed, version in enumerate(("a", "b")):
        put(home, tmp_path / version, "dense", version, run=version, seed=seed)
    point(champion="a")
    command = [HONE, "serve", "dense@champion", "--port", "{port}", "--workers", "2"]
    with server(command, home) as running, Load(running.port) as load:
        for version in ("b", "a", "b"):
            point(champion=version)
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                answers = {running.client.get("/v2/models/dense").json()["parameters"]["tag"] for _ in range(20)}
                if answers == {f"dense:{version}"}:
                    break
            assert answers == {f"dense:{version}"}
    assert load.wrong == []
    assert load.answered > 0
