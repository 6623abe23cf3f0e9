"""Where tensors may move without copies they do: counted as shared memory, from the body to the answer."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest

from hone import runtimes
from hone.errors import SignatureError
from hone.services.batching.lane import Lane
from hone.services.batching.padding import Joiner
from hone.services.batching.scheduler import Scheduler
from hone.services.http.failures import RequestError
from hone.services.http.responses import Body, Head
from hone.services.protocols.base import Protocol
from hone.services.protocols.raw import Npy, RawBytes, write_npy
from hone.services.protocols.tensors import all_finite, to_bytes
from hone.services.protocols.v2 import V2
from hone.signature import Signature, Tensors, TensorSpec
from tests.models.dense import dense_answer, dense_artifact, dense_signature

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def v2_request(pad: int = 0) -> tuple[Head, bytes]:
    tensor = {"name": "features", "datatype": "FP32", "shape": [2, 4], "parameters": {"binary_data_size": 32}}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    text += b" " * (-len(text) % 4 + pad)
    return {b"inference-header-content-length": b"%d" % len(text)}, text + ROWS.tobytes()


def of(kind: type[Protocol]) -> Protocol:
    return kind(dense_signature(), "dense", "1")


def shared(array: np.ndarray, body: Body) -> bool:
    return np.shares_memory(array, np.frombuffer(body, np.uint8))


@pytest.mark.parametrize(
    ("protocol", "head", "body"),
    [(of(RawBytes), {}, ROWS.tobytes()), (of(Npy), {}, write_npy(ROWS)), (of(V2), *v2_request())],
)
def test_request_is_a_view_of_its_body(protocol: Protocol, head: Head, body: bytes) -> None:
    request = protocol.decode(head, body)
    assert shared(request.inputs["features"], body)
    np.testing.assert_array_equal(request.inputs["features"], ROWS)


def test_lone_request_reaches_the_runtime_and_its_answer_the_socket_uncopied() -> None:
    seen: list[Tensors] = []
    answer = {"scores": np.ones((2, 3), np.float32)}

    def run(inputs: Tensors) -> Tensors:
        seen.append(inputs)
        return answer

    async def main() -> Tensors:
        lane = Lane(Scheduler(1), run, Joiner(dense_signature()))
        return await lane.submit(of(RawBytes).decode({}, body).inputs)

    body = ROWS.tobytes()
    outputs = asyncio.run(main())
    assert shared(seen[0]["features"], body)
    protocol = of(RawBytes)
    _, sent = protocol.encode(protocol.decode({}, body), outputs)
    assert isinstance(sent, memoryview) and shared(answer["scores"], sent)


def test_joined_requests_are_copied_once_and_their_answers_are_views() -> None:
    batches: list[Tensors] = []

    def run(inputs: Tensors) -> Tensors:
        batches.append({"scores": inputs["features"][:, :3].copy()})
        return batches[-1]

    async def main() -> list[Tensors]:
        lane = Lane(Scheduler(1), run, Joiner(dense_signature()))
        return list(await asyncio.gather(*(lane.submit({"features": ROWS}) for _ in range(3))))

    for outputs in asyncio.run(main()):
        assert shared(outputs["scores"], to_bytes(outputs["scores"]))
        assert np.shares_memory(outputs["scores"], batches[0]["scores"])
    assert len(batches) == 1


def test_tensor_behind_an_odd_header_is_copied_to_where_the_runtime_may_read_it() -> None:
    request = of(V2).decode(*v2_request(pad=1))
    moved = Joiner.alone(request.inputs)["features"]
    assert moved.flags.aligned
    np.testing.assert_array_equal(moved, ROWS)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1, 64, 4096, 5000])
def test_not_finite_is_found_wherever_it_is(dtype: type, size: int) -> None:
    values = np.full(size, np.finfo(dtype).max, dtype)
    assert all_finite(values)
    for bad in (np.nan, np.inf, -np.inf):
        for position in {0, size // 2, size - 1}:
            broken = values.copy()
            broken[position] = bad
            with np.errstate(invalid="ignore"):
                assert not all_finite(broken)


def test_io_binding_gives_what_a_plain_run_gives(tmp_path) -> None:  # type: ignore[no-untyped-def]
    """On the CPU's device; on CUDA the same code binds the GPU's."""
    runtime = runtimes.load(dense_artifact(tmp_path / "dense"))
    bound = runtime._run_bound({"features": ROWS}, "cpu")  # type: ignore[attr-defined]
    np.testing.assert_allclose(bound["scores"], dense_answer(ROWS), rtol=1e-5)
    np.testing.assert_array_equal(bound["scores"], runtime.run({"features": ROWS})["scores"])


def test_bare_bytes_of_texts_have_the_shape_that_the_signature_leaves_them() -> None:
    texts = Signature(inputs=(TensorSpec(name="ids", dtype="int64", shape=("batch", "length")),))
    ids = np.arange(6, dtype=np.int64)
    protocol = RawBytes(texts, "texts", "1")
    assert protocol.decode({}, ids.tobytes()).inputs["ids"].shape == (1, 6)
    assert protocol.decode({b"x-shape": b"2,3"}, ids.tobytes()).inputs["ids"].shape == (2, 3)
    fixed = Signature(inputs=(TensorSpec(name="x", shape=(2, 3)),))
    assert RawBytes(fixed, "fixed", "1").decode({}, ids.astype(np.float32).tobytes()).inputs["x"].shape == (2, 3)
    for head, body in (({b"x-shape": b"2,4"}, ids.tobytes()), ({b"x-shape": b"a"}, ids.tobytes()), ({}, b"123")):
        with pytest.raises((SignatureError, RequestError)):
            protocol.decode(head, body)
