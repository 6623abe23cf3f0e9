"""How large answers are, before they are computed, and the bytes of them that are held until they are read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import MutableMapping
from typing import Any

import numpy as np
import pytest

from hone.services.http.answers import AnswerSizes, LargeAnswer
from hone.services.http.bodies import Bodies
from hone.services.http.budget import Budget
from hone.services.http.failures import BodyTooLargeError
from hone.services.http.limits import Limits
from hone.services.http.responses import PIECE_BYTES
from hone.signature import Signature, TensorSpec

IDS = TensorSpec(name="ids", dtype="int64", shape=("batch", "tokens"))
ROWS = TensorSpec(name="x", shape=("batch", 4))


def sizes(inputs: TensorSpec, *shapes: tuple[int | str, ...], memory: int = 10**9) -> AnswerSizes:
    outputs = tuple(TensorSpec(name=f"y{index}", shape=shape) for index, shape in enumerate(shapes))
    return AnswerSizes(Signature(inputs=(inputs,), outputs=outputs), Limits(memory=memory))


@pytest.mark.parametrize(
    ("inputs", "shapes", "given", "values", "known"),
    [
        (ROWS, [("batch", 500)], (1000, 4), 500_000, True),
        (ROWS, [("batch", 3), ("batch",)], (10, 4), 40, True),
        (IDS, [("batch", "tokens", 768)], (2, 128), 2 * 128 * 768, True),
        (IDS, [("batch", "boxes", 4)], (2, 128), 8, False),
    ],
)
def test_values_of_an_answer_show_in_its_inputs(
    inputs: TensorSpec, shapes: list[tuple[int | str, ...]], given: tuple[int, ...], values: int, known: bool
) -> None:
    model = sizes(inputs, *shapes)
    arrays = {inputs.name: np.zeros(given, inputs.numpy_dtype)}
    assert model.expected(arrays, text=False) == (values, values * 8)
    assert model.expected(arrays, text=True) == (values, values * 28)
    assert model.known is known
    assert (model.small_rows >= 0) is (inputs is ROWS)


def test_rows_that_are_few_enough_need_no_estimate() -> None:
    model = sizes(ROWS, ("batch", 500))
    rows = model.small_rows
    assert model.expected({"x": np.zeros((rows, 4))}, text=True)[1] <= 65_536
    assert model.expected({"x": np.zeros((rows + 1, 4))}, text=True)[1] > 65_536


def test_answer_over_the_memory_of_a_request_is_refused_before_it_is_computed() -> None:
    model = sizes(ROWS, ("batch", 500), memory=100_000_000)
    few, many = ({"x": np.zeros((rows, 4), np.float32)} for rows in (5_000, 60_000))
    assert model.check(few) == 2_500_000
    with pytest.raises(BodyTooLargeError, match=r"answer to this request would take about 240 MB .* HONE_MAX_READ_MB"):
        model.check(many)
    with pytest.raises(BodyTooLargeError):
        asyncio.run(model.room(many, True, Budget(10**9)))


def test_an_answer_whose_size_its_inputs_do_not_show_is_checked_when_it_is_there() -> None:
    model = sizes(IDS, ("batch", "boxes", 4), memory=100_000)
    assert model.check_outputs({"y0": np.zeros((100, 25, 4), np.float32)}) == 10_000
    with pytest.raises(BodyTooLargeError, match=r"answer to this request would take about 0 MB"):
        model.check_outputs({"y0": np.zeros((100, 50, 4), np.float32)})


def test_bytes_are_held_until_the_last_piece_is_read() -> None:
    async def run() -> None:
        budget, bodies, body = Budget(10_000_000), Bodies(1), bytes(range(256)) * 4000
        room = await sizes(ROWS, ("batch", 500)).room({"x": np.zeros((200, 4))}, True, budget)
        assert room is not None and budget._left == 7_200_000
        thread = await room.encode(lambda: threading.current_thread().name, bodies)
        assert thread.startswith("decode")
        room.keep(len(body))
        assert budget._left == 10_000_000 - len(body)
        written = bytearray()

        async def send(message: MutableMapping[str, Any]) -> None:
            assert budget._left == 10_000_000 - len(body)
            assert len(message.get("body", b"")) <= PIECE_BYTES
            written.extend(message.get("body", b""))

        await room.write(send, 200, body, [], None)
        assert (bytes(written), budget._left) == (body, 10_000_000)
        bodies.close()

    asyncio.run(run())


def test_answer_that_nobody_reads_is_given_up_when_another_waits() -> None:
    async def run() -> None:
        budget, aborted = Budget(1_000_000), asyncio.Event()
        room = LargeAnswer(1, await budget.take(900_000), budget)

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        writing = asyncio.create_task(room.write(send, 200, bytes(900_000), [], aborted.set))
        await asyncio.sleep(1.2)
        assert not aborted.is_set(), "nobody waits"
        await budget.take(500_000)
        await writing
        assert aborted.is_set()

    asyncio.run(run())
