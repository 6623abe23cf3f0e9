from __future__ import annotations

import asyncio

import numpy as np
import pytest

from hone.services.observe.shadow import Comparison, Shadow, compare
from hone.signature import Tensors

ROW = {"x": np.zeros((2, 1))}


def scores(*rows: list[float]) -> Tensors:
    return {"scores": np.array(rows, dtype=np.float32)}


def test_agreement_is_by_class_or_by_value() -> None:
    assert compare(scores([1, 2], [3, 1]), scores([0, 9], [1, 3]), 2) == Comparison(2, 1, 7.0)
    near = {"y": np.array([1.0, 2.0])}
    assert compare(near, {"y": np.array([1.0001, 3.0])}, 2) == Comparison(2, 1, 1.0)
    words = {"label": np.array(["a", "b"], dtype=object)}
    assert compare(words, {"label": np.array(["a", "c"], dtype=object)}, 2).agreeing == 1


@pytest.mark.parametrize("other", [{"y": np.zeros((2, 2))}, {"scores": np.zeros((2, 3), np.float32)}])
def test_answers_of_another_form_are_a_problem(other: Tensors) -> None:
    comparison = compare(scores([1, 2], [3, 1]), other, 2)
    assert comparison.problem and comparison.agreeing == 0


def test_shadow_never_hurts() -> None:
    seen: list[Comparison] = []
    calls = 0

    async def candidate(_: Tensors) -> Tensors:
        nonlocal calls
        calls += 1
        mine = calls
        await asyncio.sleep(0.01)
        if mine == 2:
            raise RuntimeError("broken")
        return scores([1, 2], [3, 1])

    async def main() -> int:
        shadow = Shadow(candidate, max_in_flight=3, observe=seen.append)
        for _ in range(5):
            shadow.mirror(ROW, scores([1, 2], [3, 1]))
        await asyncio.sleep(0.05)
        shadow.mirror(ROW, scores([1, 2], [3, 1]))
        await shadow.close()
        return shadow.dropped

    assert asyncio.run(main()) == 2
    assert [(c.agreeing, c.problem) for c in seen] == [(2, ""), (0, "broken"), (2, "")]


def test_sample() -> None:
    async def candidate(_: Tensors) -> Tensors:
        return {}

    async def main() -> int:
        shadow = Shadow(candidate, sample=0.0)
        shadow.mirror(ROW, {})
        return len(shadow._tasks)

    assert asyncio.run(main()) == 0
