"""Models in memory: loading, swapping, healing, with real artifacts and without sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone import store
from hone.errors import ArtifactError, StoreError
from hone.services.access.exposure import check_exposure, default_host, grpc_host, is_loopback
from hone.services.batching.scheduler import Scheduler
from hone.services.http.failures import InferenceError, NotFoundError
from hone.services.models.desired import DesiredState
from hone.services.routes.edge import Edge
from hone.services.routes.hub import Hub
from hone.services.routes.repository import Repository
from hone.services.settings import Settings, misspelled
from tests.models.dense import dense_answer, dense_artifact

ROW = {"features": np.arange(4, dtype=np.float32).reshape(1, 4)}


@pytest.fixture
def two(tmp_path: Path, home: Path) -> None:
    for index, variant in enumerate(("first", "second")):
        artifact = dense_artifact(tmp_path / variant, name="dense", variant=variant, rank=index, seed=index)
        store.put(artifact, "dense", f"{variant}-1")


def with_hub(use: Callable[[Hub], Awaitable[None]], **settings: object) -> None:
    async def main() -> None:
        hub = Hub(Edge(Settings(**settings)), Scheduler(1))  # type: ignore[arg-type]
        await use(hub)
        await hub.close()
        assert hub.models() == [] and hub.routes == {}

    asyncio.run(main())


async def answer(hub: Hub, version: str = "") -> np.ndarray:
    return (await hub.get("dense", version).infer(ROW))["scores"]


@pytest.mark.usefixtures("two")
def test_swap_closes_the_old_version_when_it_has_answered() -> None:
    async def use(hub: Hub) -> None:
        old = await hub.load("dense:first")
        accepted = asyncio.create_task(old.infer(ROW))
        await asyncio.sleep(0)
        await hub.load("dense:second")
        np.testing.assert_allclose((await accepted)["scores"], dense_answer(ROW["features"], 0), rtol=1e-5)
        np.testing.assert_allclose(await answer(hub), dense_answer(ROW["features"], 1), rtol=1e-5)
        assert hub.versions("dense") == ["second-1"]
        while hub._closing:
            await asyncio.sleep(0.01)
        assert not hasattr(old, "loaded")  # the runtime is let go

    with_hub(use)


@pytest.mark.usefixtures("two")
def test_what_cannot_be_in_time_behind_others_is_refused_before_its_body_is_read() -> None:
    async def use(hub: Hub) -> None:
        served = await hub.load("dense:first")
        sent: list[dict[str, Any]] = []

        async def unread() -> dict[str, Any]:
            raise AssertionError("the body was asked for")

        async def send(message: Any) -> None:
            sent.append(message)

        accepted = [asyncio.create_task(served.infer(ROW)) for _ in range(200)]
        await asyncio.sleep(0)
        head = [(b"content-length", b"40"), (b"content-type", b"application/json"), (b"x-timeout-ms", b"0.001")]
        scope = {"type": "http", "method": "POST", "path": "/predict", "headers": head}
        await hub.routes["/predict"](scope, unread, send)
        assert sent[0]["status"] == 503
        assert b"can't answer within" in sent[1]["body"]
        assert len(await asyncio.gather(*accepted)) == 200

    with_hub(use)


@pytest.mark.usefixtures("two")
def test_failed_load_leaves_what_serves(tmp_path: Path) -> None:
    async def use(hub: Hub) -> None:
        await hub.load("dense:first")
        with pytest.raises(StoreError):
            await hub.load("dense:third")
        entry = store.resolve("dense:second")
        model = entry.path / "model.onnx"
        model.chmod(0o644)
        model.write_bytes(b"broken")
        with pytest.raises(ArtifactError):
            await hub.load("dense:second")
        np.testing.assert_allclose(await answer(hub), dense_answer(ROW["features"], 0), rtol=1e-5)
        with pytest.raises(NotFoundError, match="no version 'x'"):
            await hub.unload("dense", "x")

    with_hub(use)


@pytest.mark.usefixtures("two")
def test_sick_runtime_is_made_anew_and_poison_is_not_taken_for_sickness() -> None:
    async def use(hub: Hub) -> None:
        served = await hub.load("dense:first")
        runtime: Any = served.loaded.runtime
        whole = runtime._session

        class Lost:
            def run(self, *_: object) -> None:
                raise RuntimeError("context lost")

        async def fail(times: int) -> None:
            runtime._session = Lost()
            for _ in range(times):
                with pytest.raises(InferenceError):
                    await served.infer(ROW)

        await fail(2)
        await hub.heal()
        assert hub.get("dense") is served
        await fail(3)
        runtime._session = whole  # it was the rows: the runtime answers its example
        await hub.heal()
        assert hub.get("dense") is served and served.failures_in_a_row == 0
        await fail(3)
        await hub.heal()
        assert hub.get("dense") is served  # not looked at again so soon
        hub._healed.clear()
        await hub.heal()
        assert hub.get("dense") is not served
        np.testing.assert_allclose(await answer(hub), dense_answer(ROW["features"], 0), rtol=1e-5)

    with_hub(use)


@pytest.mark.usefixtures("two")
def test_workers_follow_the_list(tmp_path: Path) -> None:
    async def use(hub: Hub) -> None:
        await hub.load("dense:first")
        state = DesiredState(tmp_path / "state")
        repository = Repository(hub, Edge(Settings()), state)
        await repository.follow()
        assert hub.versions("dense") == ["first-1"]
        state.write(["dense:first-1", "dense:second-1"], "dense:second-1")
        await repository.follow()
        assert hub.versions("dense") == ["first-1", "second-1"]
        assert hub.get("dense").entry.version == "second-1"
        before = hub.get("dense")
        await repository.follow()
        assert hub.get("dense") is before
        state.write(["dense:second-1"], "dense:second-1")
        await repository.follow()
        assert hub.versions("dense") == ["second-1"] and hub.get("dense") is not before
        assert await state.wait_for_others(2, 1.0) == []
        state.write(["dense:gone"], "dense:gone")
        await repository.follow()
        assert "gone" in (await state.wait_for_others(3, 1.0))[0]

    with_hub(use)


@pytest.mark.usefixtures("two")
def test_shadow_stays_with_the_name_through_a_swap() -> None:
    from hone.services.assembly import attach_shadow

    async def use(hub: Hub) -> None:
        await hub.load("dense:first")
        await attach_shadow(hub, Settings(shadow="dense:second"))
        assert hub.versions("dense") == ["first-1"]
        shadow = hub.get("dense").shadow
        await hub.load("dense:first")
        assert hub.get("dense").shadow is shadow and shadow is not None

    with_hub(use)


def test_loopback_and_other_addresses() -> None:
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"))
    assert not any(is_loopback(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.com"))
    assert default_host(Settings()) == "127.0.0.1"
    assert default_host(Settings(api_keys="keys.yaml")) == "0.0.0.0"
    check_exposure(Settings(insecure=True), ["serve", "--host", "0.0.0.0"])
    check_exposure(Settings(), ["serve", "--host=127.0.0.1"])


def test_grpc_listens_where_http_does() -> None:
    everywhere = Settings(api_keys="keys.yaml")
    with socket.socket() as inner, socket.socket(socket.AF_INET6) as outer:
        inner.bind(("127.0.0.1", 0))
        outer.bind(("::", 0))
        assert grpc_host(everywhere, ["worker", "--fd", str(inner.fileno())]) == "127.0.0.1"
        assert grpc_host(everywhere, ["worker", "--fd", str(outer.fileno())]) == "::"
    assert grpc_host(everywhere, ["serve", "--host", "[::1]"]) == "::1"
    assert grpc_host(everywhere, ["serve"]) == "0.0.0.0"
    assert grpc_host(Settings(), ["serve"]) == "127.0.0.1"


def test_misspelled_settings_are_named_and_foreign_ones_left_alone() -> None:
    lines = misspelled({"HONE_THREDS": "2", "HONE_SERVICE_HOST": "10.0.0.1", "HONE_MODEL": "x", "PATH": ""})
    assert len(lines) == 1 and "did you mean HONE_THREADS" in lines[0]
