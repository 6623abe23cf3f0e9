"""What is told of a calibration set that is of other rows than the evaluation set."""

from __future__ import annotations

import numpy as np

from hone.converters.run.looks import Looks
from hone.signature import Signature, TensorSpec

SIGNATURE = Signature(inputs=(TensorSpec(name="x", shape=("batch", 3)),))


def looks(calibration: np.ndarray | None, rows: int = 600) -> Looks:
    inputs = {"x": np.random.default_rng(0).normal(size=(rows, 3)).astype(np.float32)}
    return Looks(inputs, None if calibration is None else {"x": calibration.astype(np.float32)}, private=False)


def test_calibration_rows_that_differ_are_named_with_their_columns_and_others_are_not() -> None:
    generator = np.random.default_rng(1)
    for seed in range(5):
        assert looks(np.random.default_rng(seed).normal(size=(200, 3))).unlike(SIGNATURE) == ""
    told = looks(generator.normal([0, 1, 0], size=(200, 3))).unlike(SIGNATURE)
    assert "input.x[1]" in told and "input.x[0]" not in told and "int8 ranges come from the former" in told


def test_few_rows_no_calibration_and_no_batches_tell_nothing() -> None:
    other = np.full((200, 3), 9.0)
    assert looks(other).unlike(SIGNATURE) and not looks(None).unlike(SIGNATURE)
    assert not looks(other, rows=10).unlike(SIGNATURE) and not looks(other[:3]).unlike(SIGNATURE)
    fixed = Signature(inputs=(TensorSpec(name="x", shape=(1, 3)),))
    assert not looks(other).unlike(fixed)
