"""What an artifact says of the rows of its proof."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hone.errors import ArtifactError
from hone.signature import Signature, TensorSpec
from hone.sketches.columns import columns_of, taken
from hone.sketches.reference import References, make_references, parse_references, with_calibration

GENERATOR = np.random.default_rng(0)
ROWS = 600


def spec(name: str, *shape: int | str, dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name=name, dtype=dtype, shape=("batch", *shape))


def made(signature: Signature, private: bool = False, **tensors: np.ndarray) -> References:
    names = set(signature.input_names)
    inputs = {name: array for name, array in tensors.items() if name in names}
    outputs = {name: array for name, array in tensors.items() if name not in names}
    references = make_references(signature, inputs, outputs, private=private)
    assert references is not None
    return references


def columns(references: References) -> dict[str, bool]:
    return {one.column.name: one.column.category for one in references.columns}


def test_each_kind_of_tensor_has_columns_of_its_own() -> None:
    found = columns(
        made(
            Signature(
                inputs=(
                    spec("age", dtype="int64"),
                    spec("kind", dtype="int64"),
                    spec("measures", 3),
                    spec("city", dtype="string"),
                    spec("text", dtype="string"),
                    spec("tokens", "length", dtype="int64"),
                    spec("image", 3, 32, 32),
                ),
                outputs=(spec("scores", 4),),
            ),
            age=GENERATOR.integers(18, 90, ROWS),
            kind=GENERATOR.integers(0, 5, ROWS),
            measures=GENERATOR.normal(size=(ROWS, 3)),
            city=np.array(["Bonn", "Köln", "Ulm"], dtype=object)[GENERATOR.integers(0, 3, ROWS)],
            text=np.array([f"text {number} " * 3 for number in range(ROWS)], dtype=object),
            tokens=GENERATOR.integers(0, 1000, (ROWS, 17)),
            image=GENERATOR.random((ROWS, 3, 32, 32), np.float32),
            scores=GENERATOR.normal(size=(ROWS, 4)),
        )
    )
    plain = {"input.age", "input.measures[0]", "input.text.length", "input.tokens.size", "input.tokens.mean"}
    assert plain | {"input.tokens.deviation", "input.image.norm", "output.scores.confidence"} <= {
        name for name, category in found.items() if not category
    }
    assert {"input.kind", "input.city", "output.scores.class"} == {name for name, known in found.items() if known}
    assert sum(name.startswith("input.image.projection[") for name in found) == 32
    assert len(found) <= 128


def test_wide_inputs_stay_small_and_projections_are_always_the_same() -> None:
    signature = Signature(inputs=tuple(spec(f"part{number}", 4000) for number in range(8)))
    rows = {one.name: GENERATOR.normal(size=(100, 4000)).astype(np.float32) for one in signature.inputs}
    references = made(signature, **rows)
    assert len(references.columns) == 128 and len(references.model_dump_json()) < 1_000_000
    first, second = (taken(columns_of(signature, rows, {}), rows, {}) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert 0.5 < first[:, 0].std() < 2


def test_cells_hold_each_row_once_also_with_ties_missing_values_and_infinities() -> None:
    values = np.concatenate([np.zeros(300), GENERATOR.normal(size=200), np.full(50, np.nan), np.full(50, 1e6)])
    (one,) = made(Signature(inputs=(spec("x"),)), x=values).columns
    assert sum(one.counts) == 600 and one.counts[0] == 50 and one.counts[1] == one.counts[-1] == 0
    sets, names = one.sets()
    assert sets.shape == (len(names), len(one.counts)) and len(set(names)) == len(names)
    live = one.count(np.array([np.nan, -1e9, 0.0, 1e6, np.inf, -np.inf]), np.array([]))
    assert live.tolist()[:2] == [1, 2] and live[-1] == 1 and live.sum() == 6


def test_where_rows_must_not_leave_the_data_no_value_of_theirs_does() -> None:
    income = np.round(GENERATOR.lognormal(10, 1, ROWS), 2)
    city = np.where(np.arange(ROWS) < 3, "a village", "Bonn").astype(object)
    signature = Signature(inputs=(spec("income"), spec("city", dtype="string")))
    text = made(signature, private=True, income=income, city=city).model_dump_json()
    assert "a village" not in text and "Bonn" in text
    number, _ = made(signature, private=True, income=income, city=city).columns
    assert max(number.quantiles) < np.sort(income)[-3] and number.low > np.sort(income)[3]
    assert not set(number.quantiles) & set(income.tolist())
    assert "a village" in made(signature, income=income, city=city).model_dump_json()


def test_reference_that_is_broken_or_of_another_version_is_named(tmp_path: Path) -> None:
    references = made(Signature(inputs=(spec("x"),)), x=GENERATOR.normal(size=ROWS))
    file = tmp_path / "drift-reference.json"
    file.write_text(references.model_dump_json())
    assert parse_references(file) == references
    for old, new, words in (
        ('"version":1', '"version":2', "version"),
        ('"counts":[0,', '"counts":[0,0,', "counts"),
        ('"edges":[', '"edges":[1e9,', "columns"),
    ):
        file.write_text(references.model_dump_json().replace(old, new))
        with pytest.raises(ArtifactError, match=words):
            parse_references(file)
    file.write_text(references.model_dump_json()[:-20])
    with pytest.raises(ArtifactError, match=r"drift-reference\.json"):
        parse_references(file)


def test_too_few_rows_make_no_reference() -> None:
    assert make_references(Signature(inputs=(spec("x"),)), {"x": np.zeros(19)}, {}, private=False) is None


def test_few_categories_have_every_set_and_many_the_tenths_of_their_order() -> None:
    few = np.repeat(np.arange(4), 150)
    (one,) = made(Signature(inputs=(spec("x", dtype="int64"),)), x=few).columns
    sets, names = one.sets()
    told = {name.removeprefix("in one of ") for name in names if name.startswith("in one of")}
    assert len(told) == 3, "two of four, whose other two need not be looked at again"
    live = one.count(np.zeros(600), np.repeat(["0", "1", "2", "3"], [200, 200, 100, 100]))
    shares = [sets @ cells / 600 for cells in (live, np.array(one.counts, float))]
    assert np.abs(shares[0] - shares[1]).max() == pytest.approx(1 / 6), "the total variation, in no category alone"
    ordered = np.tile(np.arange(20), 30)
    (one,) = made(Signature(inputs=(spec("x", dtype="int64"),)), x=ordered).columns
    sets, names = one.sets()
    assert len(names) == 20 + 2 + 9 and len(set(names)) == len(names)
    together = sets[22:, 1:-1] > 0
    numbers = np.array([int(name) for name in one.categories])
    assert all(numbers[row].max() < numbers[~row].min() for row in together), "small numbers beside large ones"


def test_a_value_that_repeats_has_a_set_of_its_own() -> None:
    (one,) = made(
        Signature(inputs=(spec("x"),)), x=np.concatenate([GENERATOR.normal(size=450), np.full(150, 0.25)])
    ).columns
    sets, names = one.sets()
    heavy = int(np.argmax(one.counts))
    assert any(row.sum() == 1 and row[heavy] for row in sets) and len(set(names)) == len(names)


def test_calibration_rows_are_counted_beside_the_others_and_older_files_have_none(tmp_path: Path) -> None:
    signature = Signature(inputs=(spec("x"), spec("kind", dtype="int64")))
    rows = {"x": GENERATOR.normal(size=ROWS), "kind": np.arange(ROWS) % 3}
    references = made(signature, **rows, y=GENERATOR.normal(size=ROWS))
    held = with_calibration(references, {"x": rows["x"][:90] + 1, "kind": np.full(90, 7)})
    number, kind = held.columns
    assert (held.rows, held.calibration_rows) == (ROWS, 90) and number.counts == references.columns[0].counts
    assert sum(number.calibration) == 90 and kind.calibration == (0, 0, 0, 0, 90)
    file = tmp_path / "drift-reference.json"
    file.write_text(held.model_dump_json())
    assert parse_references(file) == held
    file.write_text(
        references.model_dump_json(exclude={"calibration_rows": True, "columns": {"__all__": {"calibration"}}})
    )
    assert parse_references(file) == references and with_calibration(references, {}) == references
