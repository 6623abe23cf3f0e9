"""Steps of callers that wait at the same time: one turn of a thread, and answers as if each had come alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.errors import InputError
from hone.services.batching.steps_together import StepsTogether
from hone.signature import Tensors
from hone.steps.pipeline import ReadySteps
from hone.steps.ready import ready_steps
from tests.models.words import words_artifact

TEXTS = (["good"], ["a very very dull film", "bad"], ["a very good film a a a a a a"], ["film", "good good"])


class Watched:
    """Steps of a model of texts, and the rows of each of their turns."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        artifact = words_artifact(folder / "a")
        steps = ready_steps(artifact)
        assert steps is not None
        self.steps: ReadySteps = steps
        self.signature = artifact.signature
        self.turns: list[int] = []
        self.alone = steps.tensors

        def tensors(raw: Tensors, most_bytes: int | None = None) -> Any:
            self.turns.append(len(raw["text"]))
            return self.alone(raw, most_bytes)

        monkeypatch.setattr(steps, "tensors", tensors)

    def run(self, ask: Callable[[StepsTogether], Awaitable[Any]], threads: int = 2) -> Any:
        async def main() -> Any:
            with ThreadPoolExecutor(threads) as pool:
                return await ask(StepsTogether(self.steps, self.signature, pool, threads))

        return asyncio.run(main())


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(tmp_path, monkeypatch)


def given(texts: list[Any]) -> Tensors:
    return {"text": np.array(texts, dtype=object)}


def same(made: Any, wanted: Any) -> None:
    """Compare what callers got: tensors of the same shapes and values, and the tokens of each row."""
    assert made[0].keys() == wanted[0].keys()
    for name, array in wanted[0].items():
        np.testing.assert_array_equal(made[0][name], array)
        assert made[0][name].dtype == array.dtype and made[0][name].flags.c_contiguous
    np.testing.assert_array_equal(made[1], wanted[1])


def test_callers_of_one_turn_go_together_and_get_what_they_would_alone(watched: Watched) -> None:
    found = watched.run(lambda together: asyncio.gather(*(together.tensors(given(texts)) for texts in TEXTS)))
    assert watched.turns == [6]
    for made, texts in zip(found, TEXTS, strict=True):
        same(made, watched.alone(given(texts)))


def test_a_row_that_can_not_be_used_costs_its_own_caller_only(watched: Watched) -> None:
    callers = [["good"], ["film", ""], ["bad film"]]
    found = watched.run(
        lambda together: asyncio.gather(*(together.tensors(given(t)) for t in callers), return_exceptions=True)
    )
    assert isinstance(found[1], InputError) and str(found[1]) == "input 'text': row 1 has no tokens"
    same(found[0], watched.alone(given(callers[0])))
    same(found[2], watched.alone(given(callers[2])))


def test_functions_of_ones_own_see_each_callers_rows_alone(watched: Watched) -> None:
    watched.steps.runs_code = True
    watched.run(lambda together: asyncio.gather(*(together.tensors(given(texts)) for texts in TEXTS)))
    assert sorted(watched.turns) == [1, 1, 2, 2]


def test_those_who_come_while_threads_are_busy_wait_and_those_who_left_are_not_worked_for(watched: Watched) -> None:
    async def ask(together: StepsTogether) -> Any:
        first = asyncio.ensure_future(together.tensors(given(["good"])))
        await asyncio.sleep(0)
        await asyncio.sleep(0)  # its turn has begun, in the only thread
        later = [asyncio.ensure_future(together.tensors(given([text]))) for text in ("film", "bad", "dull")]
        await asyncio.sleep(0)
        later[1].cancel()
        return await asyncio.gather(first, later[0], later[2])

    found = watched.run(ask, threads=1)
    assert watched.turns == [1, 2]
    for made, text in zip(found, ("good", "film", "dull"), strict=True):
        same(made, watched.alone(given([text])))


def test_work_of_many_rows_is_spread_over_the_threads(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone.services.batching.steps_together.TURN_S", 1e-9)  # any row is worth a thread

    async def ask(together: StepsTogether) -> None:
        await together.tensors(given(["good"]))
        await asyncio.gather(*(together.tensors(given(["film"])) for _ in range(8)))

    watched.run(ask)
    assert watched.turns[0] == 1 and sorted(watched.turns[1:]) == [4, 4]


def test_threads_that_have_ended_are_told(watched: Watched) -> None:
    async def ask(together: StepsTogether) -> Any:
        together._pool.shutdown()
        return await asyncio.gather(together.tensors(given(["good"])), return_exceptions=True)

    (found,) = watched.run(ask)
    assert isinstance(found, RuntimeError)
