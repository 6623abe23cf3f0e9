"""A token id or index that a model doesn't know: its caller's mistake, found by the runtime."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hone.artifact import Artifact, Manifest, Selection, seal
from hone.errors import InputError
from hone.runtimes.onnx.runtime import OnnxRuntime
from hone.services.batching.lane import SINGLE_BATCHES, Lane
from hone.services.batching.options import LaneOptions
from hone.services.batching.padding import Joiner
from hone.services.batching.scheduler import Scheduler
from hone.services.http.failures import status_of
from hone.signature import Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(TensorSpec(name="ids", dtype="int64", shape=("batch", 2)),),
    outputs=(TensorSpec(name="vectors", dtype="float32", shape=("batch", 2, 3)),),
)
TABLE = np.arange(15, dtype=np.float32).reshape(5, 3)


@pytest.fixture
def runtime(tmp_path: Path) -> OnnxRuntime:
    """An embedding of five words."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["vectors"], name="words")],
        "embedding",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 2])],
        [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["batch", 2, 3])],
        [numpy_helper.from_array(TABLE, "table")],
    )
    folder = tmp_path / "artifact"
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    artifact: Artifact = seal(
        folder,
        Manifest(
            name="words", variant="onnx-fp32", runtime="onnx", precision="fp32", entry="model.onnx",
            signature=SIGNATURE, selection=Selection(run="20260101-000000-0000", rank=0, eligible=True),
        ),
    )  # fmt: skip
    return OnnxRuntime(artifact)


def ids(*values: int) -> dict[str, np.ndarray]:
    return {"ids": np.array([values], np.int64)}


@pytest.mark.parametrize("threads", [0, 1])
def test_an_unknown_token_fails_its_own_caller_only_and_quietly(
    runtime: OnnxRuntime, threads: int, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def main() -> tuple[list[object], int]:
        with ThreadPoolExecutor(1) as executor:
            options = LaneOptions(executor=executor if threads else None)
            lane = Lane(Scheduler(1), runtime.run, Joiner(SIGNATURE), options)
            requests = [ids(0, 1), ids(2, 99), ids(3, 4), ids(-7, 0)]
            answers = await asyncio.gather(*map(lane.submit, requests), return_exceptions=True)
            for _ in range(5):
                with pytest.raises(InputError):
                    await lane.submit(ids(5, 0))
            return answers, lane.failures_in_a_row

    with caplog.at_level(logging.DEBUG):
        answers, failures = asyncio.run(main())
    assert failures == 0  # the runtime isn't sick
    first, unknown, third, negative = answers
    np.testing.assert_array_equal(first["vectors"], TABLE[[0, 1]][None])  # type: ignore[index]
    np.testing.assert_array_equal(third["vectors"], TABLE[[3, 4]][None])  # type: ignore[index]
    for error in (unknown, negative):
        status, text, _ = status_of(error)  # type: ignore[arg-type]
        assert status == 400 and "an input has a value out of range: indices element out of data bounds" in text
    assert not [record for record in caplog.records if record.name.startswith("hone")]
    assert "ExecuteKernel" not in capfd.readouterr().err


def test_an_unknown_token_alone_is_the_callers_mistake_too(runtime: OnnxRuntime) -> None:
    async def main() -> int:
        lane = Lane(Scheduler(1), runtime.run, Joiner(SIGNATURE), LaneOptions())
        for _ in range(SINGLE_BATCHES + 3):
            await lane.submit(ids(0, 1))
            await asyncio.sleep(0)
        assert lane._alone  # requests run at once
        with pytest.raises(InputError):
            await lane.submit(ids(0, 5))
        return lane.failures_in_a_row

    assert asyncio.run(main()) == 0


def test_what_is_no_index_stays_the_models_failure(runtime: OnnxRuntime) -> None:
    with pytest.raises(Exception, match="Invalid rank") as caught:
        runtime.run({"ids": np.zeros(2, np.int64)})
    assert not isinstance(caught.value, InputError)
