"""Rows are disturbed alike in every process, stay valid inputs, and keep what marks and fills them up."""

from __future__ import annotations

import numpy as np
import pytest

from hone.converters.proof.robustness.kinds import KINDS
from hone.converters.proof.robustness.rows import BATCH, Case, Disturbed, cases_of
from hone.converters.proof.robustness.traits import Traits
from hone.errors import RecipeError
from hone.recipe import RobustnessSpec
from hone.signature import Tensors, TensorSpec

COUNT, LENGTH = 100, 12
START, END, PADDING = 101, 102, 0


def table() -> tuple[TensorSpec, np.ndarray]:
    values = np.random.default_rng(0).normal([0, 50, 7], [1, 10, 0], (COUNT, 3)).astype(np.float32)
    return TensorSpec(name="x", shape=("batch", 3)), values


def tokens() -> tuple[list[TensorSpec], Tensors]:
    """Return texts of 3 to 8 words between marks, filled up, and the mask that says so."""
    generator = np.random.default_rng(0)
    ids, mask = np.full((COUNT, LENGTH), PADDING), np.zeros((COUNT, LENGTH), np.int64)
    for row in range(COUNT):
        words = generator.integers(3, 9)
        ids[row, : words + 2] = [START, *generator.integers(1000, 1100, words), END]
        mask[row, : words + 2] = 1
    specs = [TensorSpec(name=name, dtype="int64", shape=("batch", "length")) for name in ("ids", "mask")]
    return specs, {"ids": ids, "mask": mask}


def images(dtype: str, shape: tuple[int, ...]) -> tuple[TensorSpec, np.ndarray]:
    values = np.random.default_rng(0).integers(0, 256, (COUNT, *shape))
    array = values.astype(np.uint8) if dtype == "uint8" else (values / 255).astype(np.float32)
    return TensorSpec(name="x", dtype=dtype, shape=("batch", *shape)), array


def one(spec: TensorSpec, rows: np.ndarray) -> Disturbed:
    return Disturbed([spec], {"x": rows})


def all_of(disturbed: Disturbed, kind: str, severity: int, rows: int | None = None) -> Tensors:
    parts = list(disturbed.batches(Case(kind, severity), rows))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def apart(kind: str, severity: int, spec: TensorSpec, rows: np.ndarray) -> float:
    """Return how far the rows are moved, in all."""
    moved = one(spec, rows).batches(Case(kind, severity), None)
    order = np.random.default_rng(0).permutation(COUNT)
    got = np.concatenate([part["x"] for part in moved]).astype(float)
    return float(np.abs(got - rows[order].astype(float)).mean())


@pytest.mark.parametrize("kind", ["noise", "missing", "brightness", "contrast", "blur"])
def test_the_severer_the_farther(kind: str) -> None:
    spec, rows = table() if kind in ("noise", "missing") else images("float32", (3, 32, 32))
    weak, middling, strong = (apart(kind, severity, spec, rows) for severity in (1, 3, 5))
    assert 0 < weak < middling < strong


@pytest.mark.parametrize(
    ("dtype", "shape"), [("uint8", (16, 16, 3)), ("float32", (1, 8, 8)), ("float32", (3, 20, 40)), ("uint8", (1, 8, 8))]
)
def test_images_keep_their_form_and_their_colors(dtype: str, shape: tuple[int, ...]) -> None:
    spec, rows = images(dtype, shape)
    disturbed = one(spec, rows)
    assert disturbed.kinds == ["noise", "brightness", "contrast", "blur", "shift"]
    for kind in disturbed.kinds:
        got = all_of(disturbed, kind, 5)["x"]
        assert got.dtype == rows.dtype and got.shape == rows.shape
        assert rows.min() <= got.min() and got.max() <= rows.max()
        assert not np.array_equal(np.sort(got.ravel()), np.sort(rows.ravel()))


def test_noise_is_measured_by_each_features_spread() -> None:
    spec, rows = table()
    moved = all_of(one(spec, rows), "noise", 3)["x"] - rows[np.random.default_rng(0).permutation(COUNT)]
    assert moved.std(axis=0) == pytest.approx([0.2, 2, 0], rel=0.3, abs=1e-6)


def test_missing_values_are_nan_only_for_models_that_take_it() -> None:
    spec, rows = table()
    got = all_of(one(spec, rows), "missing", 5)["x"]
    assert np.isfinite(got).all() and np.isclose(got[:, 1], np.median(rows[:, 1])).mean() > 0.3
    takes = spec.model_copy(update={"allow_nan": True})
    assert 0.3 < np.isnan(all_of(one(takes, rows), "missing", 5)["x"]).mean() < 0.5
    holes = np.where(rows > 60, np.nan, rows)
    assert np.isnan(all_of(one(takes, holes), "noise", 1)["x"]).sum() == np.isnan(holes).sum()


@pytest.mark.parametrize("masked", [True, False])
def test_marks_and_padding_of_texts_stay(masked: bool) -> None:
    specs, rows = tokens()
    if not masked:
        specs, rows = specs[:1], {"ids": rows["ids"]}
    disturbed = Disturbed(specs, rows)
    assert disturbed.kinds == ["replaced"]
    got, before = all_of(disturbed, "replaced", 5), np.random.default_rng(0).permutation(COUNT)
    was = rows["ids"][before]
    kept = np.isin(was, (START, END, PADDING))
    assert np.array_equal(got["ids"][kept], was[kept])
    assert 0.1 < (got["ids"] != was)[~kept].mean() < 0.3
    assert set(np.unique(got["ids"][~kept])) <= set(np.unique(was[~kept]))
    if masked:
        assert np.array_equal(got["mask"], rows["mask"][before])


def test_columns_of_a_table_get_values_of_their_own() -> None:
    generator = np.random.default_rng(0)
    rows = np.stack([generator.integers(0, 4, COUNT), generator.integers(10, 14, COUNT)], axis=1)
    got = all_of(one(TensorSpec(name="x", dtype="int64", shape=("batch", 2)), rows), "replaced", 5)["x"]
    assert set(got[:, 0]) <= {0, 1, 2, 3} and set(got[:, 1]) <= {10, 11, 12, 13}
    assert not np.array_equal(np.sort(got, axis=0), np.sort(rows, axis=0))


def test_places_and_flags_are_no_choices() -> None:
    spec = TensorSpec(name="x", dtype="int64", shape=("batch", "length"))
    places = np.tile(np.arange(LENGTH), (COUNT, 1))
    flags = np.random.default_rng(0).integers(0, 2, (COUNT, LENGTH))
    assert not Traits(spec, places).is_choice and not Traits(spec, flags).is_choice


def test_words_get_two_letters_swapped() -> None:
    rows = np.array([["the quick brown fox, no. 7"]] * COUNT, dtype=object)
    got = all_of(one(TensorSpec(name="x", dtype="string", shape=("batch", 1)), rows), "typos", 5)["x"]
    changed = {text for (text,) in got} - {"the quick brown fox, no. 7"}
    assert changed and all(sorted(text) == sorted("the quick brown fox, no. 7") for text in changed)
    assert all(", no. 7" in text for text in changed)


def test_every_process_makes_the_same_rows_and_the_first_of_them_are_the_same() -> None:
    spec, rows = table()
    whole, few = all_of(one(spec, rows), "noise", 2)["x"], all_of(one(spec, rows), "noise", 2, rows=BATCH)["x"]
    assert np.array_equal(whole, all_of(one(spec, rows.copy()), "noise", 2)["x"])
    assert np.array_equal(whole[:BATCH], few) and len(few) == BATCH


def test_recipe_names_every_kind() -> None:
    (names,) = [field for name, field in RobustnessSpec.model_fields.items() if name == "perturbations"]
    for kind in KINDS:
        RobustnessSpec(perturbations=(kind,))  # type: ignore[arg-type]
        assert f"`{kind}`" in str(names.description)


def test_what_fits_none_of_the_inputs_is_refused() -> None:
    spec, rows = table()
    disturbed = one(spec, rows)
    assert [str(case) for case in cases_of(RobustnessSpec(severities=(2, 1)), disturbed, "r")][:2] == [
        "noise (severity 1)",
        "noise (severity 2)",
    ]
    with pytest.raises(RecipeError, match=r"blur fits none of the model's inputs; these do: noise, missing"):
        cases_of(RobustnessSpec(perturbations=("blur",)), disturbed, "r")
    flags = one(TensorSpec(name="x", dtype="bool", shape=("batch", 3)), rows > 0)
    with pytest.raises(RecipeError, match=r"none of the model's inputs; none does, so leave budget\.robustness_drop"):
        cases_of(RobustnessSpec(), flags, "r")
