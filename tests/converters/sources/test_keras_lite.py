"""Keras models as LiteRT's: convolutions, recurrent layers, several inputs and outputs, and what has no kernel."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from hone import runtimes
from hone.artifact import Artifact
from hone.converters.run.pass_task import PassTask, run_pass
from hone.errors import PassError
from tests.converters.sources.test_keras import IMAGE, convolutional, saved
from tests.later import later
from tests.passes import details
from tests.sources import Work, run

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
later("tensorflow")
later("ai_edge_litert")
keras = later("keras")


def converted(work: Work, **options: object) -> Artifact:
    target = work.loaded.root / "lite"
    return Artifact.open(run_pass(PassTask("litert", options, work.artifact.path, target, work.loaded.path)))


def test_named_outputs_and_any_number_of_rows(tmp_path: Path) -> None:
    work = saved(tmp_path, convolutional(keras), {"image": IMAGE}, calibration="rows.npz")
    made = converted(work)
    assert (made.runtime, made.entry.name, details(made)) == ("litert", "model.tflite", {})
    for rows in (8, 3):
        got = runtimes.load(made, 1).run({"image": IMAGE[:rows]})
        for name, wanted in run(work.artifact, {"image": IMAGE[:rows]}).items():
            np.testing.assert_allclose(got[name], wanted, atol=1e-5)


def test_a_recurrent_layer_is_made_for_one_row_and_takes_more_in_parts(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((5, 3)), keras.layers.LSTM(4), keras.layers.Dense(2)])
    rows = {"steps": np.random.default_rng(0).normal(size=(9, 5, 3)).astype(np.float32)}
    signature = {"inputs": {"steps": {"shape": ["batch", 5, 3]}}, "outputs": ["y"]}
    work = saved(tmp_path, model, rows, signature=signature)
    made = converted(work)
    assert details(made) == {"rows": 1}
    np.testing.assert_allclose(runtimes.load(made, 1).run(rows)["y"], run(work.artifact, rows)["y"], atol=1e-5)


def test_an_operation_without_a_kernel_is_named(tmp_path: Path) -> None:
    values = keras.Input((4,), name="values")
    work = saved(tmp_path, keras.Model(values, keras.ops.erfinv(values)), {"values": np.zeros((8, 4), np.float32)})
    with pytest.raises(PassError, match=r"litert: LiteRT has no kernel for TensorFlow's Erfinv"):
        converted(work)
