from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hone import runtimes
from hone.artifact import Artifact
from hone.errors import ArtifactError, InputError, PassError
from hone.runtimes import litert
from hone.signature import Signature, TensorSpec
from tests.models.lite import IDS, lite_artifact, lite_rows
from tests.passes import Bench, details

pytest.importorskip("ai_edge_litert")


@pytest.fixture
def dense(tmp_path: Path) -> Artifact:
    return lite_artifact(tmp_path / "dense", "dense")


def test_any_number_of_rows_gives_each_its_answer(dense: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert, "KEPT", 2)  # so that memory is given to other shapes, too
    runtime, x = runtimes.load(dense, 1), lite_rows()["x"]
    one_by_one = np.concatenate([runtime.run({"x": x[row : row + 1]})["y"] for row in range(16)])
    for rows in (16, 3, 5, 16, 3, 1):
        np.testing.assert_allclose(runtime.run({"x": x[:rows]})["y"], one_by_one[:rows], rtol=1e-4, atol=1e-6)
    assert runtime.describe().startswith("LiteRT 2.")


def test_a_model_for_two_rows_takes_any_number_in_parts(dense: Artifact, tmp_path: Path) -> None:
    pairs, x = lite_artifact(tmp_path / "pairs", "pairs"), lite_rows(7)["x"]
    wanted = runtimes.load(dense, 1).run({"x": x})["y"]
    np.testing.assert_allclose(runtimes.load(pairs, 2).run({"x": x})["y"], wanted, rtol=1e-4, atol=1e-6)


def test_answers_are_not_overwritten_by_the_next_one(dense: Artifact) -> None:
    runtime, x = runtimes.load(dense, 1), lite_rows()["x"]
    first = runtime.run({"x": x[:4]})["y"]
    kept = first.copy()
    runtime.run({"x": x[4:8]})
    np.testing.assert_array_equal(first, kept)


def test_an_id_that_the_model_does_not_know_is_the_callers_mistake(tmp_path: Path) -> None:
    runtime = runtimes.load(lite_artifact(tmp_path / "ids", "embedding", IDS), 1)
    ids = np.zeros((2, 6), np.int32)
    assert next(iter(runtime.run({"ids": ids}).values())).shape == (2, 6, 4)
    with pytest.raises(InputError, match="out of range: gather index out of bounds"):
        runtime.run({"ids": ids + 99})
    assert next(iter(runtime.run({"ids": ids}).values())).shape == (2, 6, 4)


def test_what_is_no_model_or_another_one_is_refused(dense: Artifact, tmp_path: Path) -> None:
    other = Signature(inputs=(TensorSpec(name="z", dtype="float32", shape=("batch", 16)),))
    with pytest.raises(ArtifactError, match=r"model\.tflite: has the inputs \['x'\], the signature names \['z'\]"):
        runtimes.load(lite_artifact(tmp_path / "other", "dense", other), 1)
    content = dense.entry.read_bytes()
    for broken in (b"", b"no model", content[:900]):
        dense.entry.write_bytes(broken)
        with pytest.raises(ArtifactError, match=r"model\.tflite: LiteRT can't load it"):
            runtimes.load(dense, 1)


@pytest.mark.parametrize(
    ("options", "precision", "most"),
    [
        ({}, "int8", 0.05),
        ({"activation_bits": 16}, "int8", 0.05),
        ({"mode": "dynamic"}, "int8", 0.05),
        ({"mode": "weights", "weight_bits": 4, "per_channel": False}, "int4", 0.5),
        ({"mode": "weights", "weight_bits": 16}, "fp16", 0.01),
    ],
)
def test_quantized_models_answer_nearly_as_their_source(
    dense: Artifact, tmp_path: Path, options: dict[str, object], precision: str, most: float
) -> None:
    bench = Bench(tmp_path, dense.signature, lite_rows())
    made = bench.run("quantize_litert", dense, **options)
    off = np.abs(bench.outputs(made)["y"] - bench.outputs(dense)["y"]).max()
    assert made.manifest.precision == precision and 0 < off < most
    assert details(made)["quantized"] >= 2 and made.signature == dense.signature


def test_ranges_hold_what_few_rows_reach(dense: Artifact, tmp_path: Path) -> None:
    rows = lite_rows()["x"] * np.where(np.arange(64) == 5, 20, 1)[:, None].astype(np.float32)
    bench = Bench(tmp_path, dense.signature, {"x": rows})
    wanted = bench.outputs(dense)["y"][5]
    off = [
        np.abs(bench.outputs(bench.run("quantize_litert", dense, method=method))["y"][5] - wanted).max()
        for method in ("minmax", "average")
    ]
    assert off[0] < 0.1 * off[1]


def test_a_model_whose_nodes_all_stay_in_float_is_refused(dense: Artifact, tmp_path: Path) -> None:
    bench = Bench(tmp_path, dense.signature, lite_rows())
    with pytest.raises(PassError, match="nothing of the model could be quantized"):
        bench.run("quantize_litert", dense, exclude=[".*"])
