"""A worker whose model begins to answer wrongly stops answering for it, and takes another variant if there is one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hone import store
from hone.artifact import Selection
from hone.converters.proof.golden import Taken
from hone.errors import GoldenError
from hone.golden.rows import GoldenRows
from hone.services.batching.scheduler import Scheduler
from hone.services.http.failures import MistrustedError
from hone.services.routes.edge import Edge
from hone.services.routes.hub import Hub
from hone.services.routes.served import ServedModel
from hone.services.settings import Settings
from tests import goldens
from tests.corruptions import swap_outputs

RUN = "20260101-000000-0000"


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    folder = tmp_path_factory.mktemp("golden")
    return goldens.taken(goldens.sealed(folder / "sound", goldens.network()), goldens.rows(), folder / "scratch")


def put(folder: Path, golden: Taken, *variants: str) -> None:
    """Store variants; what isn't portable is followed by another candidate, so only the last one is."""
    for rank, variant in enumerate(variants):
        needs = {"x86_features": "avx2|sse2"} if rank < len(variants) - 1 else {}
        put_one(folder, golden, variant, rank, requires=needs)


def put_one(folder: Path, golden: Taken, variant: str, rank: int, **changes: object) -> None:
    model = goldens.network()
    if variant.startswith("wrong"):
        swap_outputs(model)
    artifact = goldens.sealed(folder / f"{variant}-plain", model)
    selection = Selection(run=RUN, rank=rank, eligible=True)
    made = goldens.with_golden(folder / variant, artifact, golden, variant=variant, selection=selection, **changes)
    store.put(made, "small", variant)


def on_hub(work: Callable[[Hub], Awaitable[None]], **settings: object) -> None:
    async def run() -> None:
        hub = Hub(Edge(Settings(**settings)), Scheduler(1))  # type: ignore[arg-type]
        try:
            await work(hub)
        finally:
            await hub.close()

    asyncio.run(run())


def answers_otherwise(served: ServedModel) -> None:
    """Let what a model answers be wrong from now on: as if its memory had changed, the proof's answers are others."""
    rows = served.loaded.golden
    assert rows is not None
    others = {name: array[::-1].copy() for name, array in rows.outputs.items()}
    served.loaded = replace(served.loaded, golden=GoldenRows(rows.inputs, others))


def test_sound_model_goes_on_serving(tmp_path: Path, golden: Taken) -> None:
    put(tmp_path, golden, "sound")

    async def work(hub: Hub) -> None:
        served = await hub.load("small")
        await hub.check_golden()
        assert hub.get("small") is served and hub.ready
        checked = await served.compare()
        assert checked is not None and checked.match and checked.rows == golden.rows.count  # type: ignore[union-attr]

    on_hub(work)


def test_golden_rows_share_no_batch_with_requests(tmp_path: Path, golden: Taken) -> None:
    put(tmp_path, golden, "sound")

    async def work(hub: Hub) -> None:
        served = await hub.load("small")
        rows = goldens.rows(4)
        sizes: list[int] = []
        served._lane._observe = lambda times: sizes.append(times.rows)
        check = asyncio.ensure_future(served.compare())
        while not check.done():
            await asyncio.gather(*(served.infer(rows) for _ in range(3)))
            await asyncio.sleep(0.005)
        assert (await check) is not None
        assert sizes and not [size for size in sizes if size != 1 and size % 4]

    on_hub(work, max_batch_rows=12)


def test_model_whose_memory_changed_is_loaded_again(
    tmp_path: Path, golden: Taken, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, golden, "sound")

    async def work(hub: Hub) -> None:
        served = await hub.load("small")
        answers_otherwise(served)
        await hub.check_golden()
        again = hub.get("small")
        assert again is not served and again.tag == served.tag and hub.ready
        assert set(await again.infer(goldens.rows(1))) == {"left", "right"}

    on_hub(work)
    assert "small:sound gives other answers than its proof's to" in caplog.text


def test_next_variant_takes_the_place_of_one_that_can_not_be_loaded_again(tmp_path: Path, golden: Taken) -> None:
    put(tmp_path, golden, "sound", "other")

    async def work(hub: Hub) -> None:
        served = await hub.load("small")
        assert served.entry.version == "sound"
        answers_otherwise(served)
        (served.entry.path / "model.onnx").write_bytes(b"no graph")
        await hub.check_golden()
        assert hub.versions("small") == ["other"] and hub.ready

    on_hub(work)


@pytest.mark.parametrize("given", ["small", "small:wrong-first"])
def test_rest_of_the_run_is_the_spare_of_a_name_alone(tmp_path: Path, golden: Taken, given: str) -> None:
    """The first is portable, so a service has no other candidate; yet the store has one."""
    for rank, variant in enumerate(("wrong-first", "sound")):
        put_one(tmp_path, golden, variant, rank)
    assert [entry.version for entry in store.serving_set("small")] == ["wrong-first"]

    async def work(hub: Hub) -> None:
        if given == "small":
            assert (await hub.load("small")).entry.version == "sound"
            return
        with pytest.raises(GoldenError):
            await hub.load(given)

    on_hub(work, model=given)


def test_worker_is_not_ready_when_no_variant_is_left(tmp_path: Path, golden: Taken) -> None:
    put(tmp_path, golden, "sound")

    async def work(hub: Hub) -> None:
        served = await hub.load("small")
        answers_otherwise(served)
        file = served.entry.path / "model.onnx"
        sound = file.read_bytes()
        file.write_bytes(b"no graph")
        await hub.check_golden()
        assert not hub.ready and "/predict" in hub.routes
        with pytest.raises(MistrustedError, match="gives other answers on this host than in its proof"):
            hub.get("small")
        file.write_bytes(sound)
        await hub.load("small")
        assert hub.ready and hub.get("small").tag == "small:sound"

    on_hub(work)


def test_artifact_of_before_is_served_and_the_log_says_it_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hone.serving")
    store.put(goldens.sealed(tmp_path / "old", goldens.network()), "old", "v1")

    async def work(hub: Hub) -> None:
        for _ in range(2):
            served = await hub.load("old:v1")
        assert await served.compare() is None

    on_hub(work)
    assert caplog.text.count("old:v1 has no golden rows") == 1


def test_other_answers_are_shown_in_the_metrics(tmp_path: Path, golden: Taken) -> None:
    from prometheus_client import REGISTRY

    put(tmp_path, golden, "wrong-one", "right")

    async def work(hub: Hub) -> None:
        assert (await hub.load("small")).entry.version == "right"

    on_hub(work)
    labels = {"model": "small", "version": "wrong-one"}
    assert REGISTRY.get_sample_value("hone_golden_mismatch", labels) == 1
    assert REGISTRY.get_sample_value("hone_golden_checks_total", {**labels, "result": "mismatch"}) == 1
    assert REGISTRY.get_sample_value("hone_golden_mismatch", {"model": "small", "version": "right"}) == 0
