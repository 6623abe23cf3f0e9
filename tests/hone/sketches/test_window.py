"""Sketches of traffic: merged, bounded, and files that tell when they are broken."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hone.lifecycle.drift.counting import of_window
from hone.signature import Signature, Tensors, TensorSpec
from hone.sketches import folder
from hone.sketches.reference import References, make_references
from hone.sketches.window import About, BrokenSketchError, Window, decode

GENERATOR = np.random.default_rng(0)
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", shape=("batch", 3)), TensorSpec(name="city", dtype="string", shape=("batch",))),
    outputs=(TensorSpec(name="y", shape=("batch", 2)),),
)
HOUR = 500_000


def rows(count: int) -> tuple[Tensors, Tensors]:
    x = GENERATOR.normal(size=(count, 3)).astype(np.float32)
    return {"x": x, "city": np.array(["Bonn", "Ulm"], object)[GENERATOR.integers(0, 2, count)]}, {"y": x[:, :2].copy()}


@pytest.fixture(scope="module")
def references() -> References:
    made = make_references(SIGNATURE, *rows(1000), private=False)
    assert made is not None
    return made


def window(references: References, *requests: int, version: str = "v1", hour: int = HOUR, by: str = "") -> Window:
    made = Window.empty(About("m", version, hour, by), references.names)
    made.add(references, [rows(count) for count in requests])
    return made


def test_windows_merged_count_what_they_counted_apart(references: References) -> None:
    parts = [window(references, *[7] * 40), window(references, *[1] * 200)]
    merged = decode(parts[0].encode(), "a")
    merged.merge(decode(parts[1].encode(), "b"))
    assert (merged.rows, merged.requests) == (480, 240)
    for place, reference in enumerate(references.columns):
        apart = sum(of_window(part, place, reference).cells for part in parts)
        np.testing.assert_allclose(of_window(merged, place, reference).cells, apart, atol=480 * 0.02)
        assert of_window(merged, place, reference).effect < 2


def test_sketches_agree_with_counts_of_all_rows(references: References) -> None:
    requests = [rows(500) for _ in range(20)]
    made = Window.empty(About("m", "v1", HOUR), references.names)
    made.add(references, requests)
    values = np.concatenate([inputs["x"][:, 1] for inputs, _ in requests])
    place = [column.name for column in references.names].index("input.x[1]")
    found = of_window(made, place, references.columns[place])
    exact = references.columns[place].count(values.astype(float), np.array([]))
    assert 0 < found.error < 0.01 and found.cells.sum() == 10_000
    assert np.abs(np.cumsum(found.cells - exact)).max() < 10_000 * 0.02
    assert len(made.encode()) < 60_000


def test_missing_values_and_new_categories_are_counted(references: References) -> None:
    inputs, outputs = rows(10)
    inputs["x"][:4, 0], inputs["city"][:3] = np.nan, "Trier"
    made = Window.empty(About("m", "v1", HOUR), references.names)
    made.add(references, [(inputs, outputs), (inputs, {})])
    by_name = {column.name: place for place, column in enumerate(references.names)}
    assert of_window(made, by_name["input.x[0]"], references.columns[by_name["input.x[0]"]]).cells[0] == 8
    city = by_name["input.city"]
    assert of_window(made, city, references.columns[city]).cells[-1] == 6
    assert ("Trier", 6) in made.most_frequent(city, 9)
    assert made.missing[by_name["output.y[0]"]] == 10


def test_broken_file_costs_itself_only_and_is_named(tmp_path: Path, references: References) -> None:
    for worker in ("a", "b", "c", "d"):
        folder.write(tmp_path, window(references, 10), worker)
    place = next(tmp_path.glob("model=m/version=v1/*"))
    (place / "a.sketch").write_bytes((place / "a.sketch").read_bytes()[:-100])  # cut off
    content = bytearray((place / "b.sketch").read_bytes())
    content[len(content) // 2] ^= 1
    (place / "b.sketch").write_bytes(content)
    (place / "c.sketch").write_bytes(b"HONE-DRIFT 2\n")
    (place / ".e.sketch.x1").write_bytes(b"half of a file, of a worker that was killed")
    found = folder.read(tmp_path, "m", HOUR)
    assert [one.rows for one in found.windows] == [10] and len(found.problems) == 3
    assert all(str(place) in problem for problem in found.problems)
    with pytest.raises(BrokenSketchError, match="version of the format"):
        decode(b"", "nothing")


def test_sketches_by_another_reference_and_hours_to_come_are_left_out(tmp_path: Path, references: References) -> None:
    folder.write(tmp_path, window(references, 10, by="one"), "a")
    folder.write(tmp_path, window(references, 10, by="two"), "b")
    folder.write(tmp_path, window(references, 10, hour=HOUR + 50), "a")
    (tmp_path / "model=m" / "version=v1" / "notes").mkdir()
    found = folder.read(tmp_path, "m", HOUR)
    assert [one.about.reference for one in found.windows] == ["one"]
    assert "another reference" in found.problems[0] and "still to come" in found.problems[1]


def test_oldest_hours_are_removed_and_the_newest_stays(tmp_path: Path, references: References) -> None:
    for hour in range(HOUR - 100, HOUR + 1, 20):
        folder.write(tmp_path, window(references, 5, hour=hour), "a")
    size = next(tmp_path.rglob("*.sketch")).stat().st_size
    folder.remove_oldest(tmp_path, 10**9, 2.0, HOUR)
    assert [one.about.hour for one in folder.read(tmp_path, "m", HOUR).windows] == [HOUR - 40, HOUR - 20, HOUR]
    folder.remove_oldest(tmp_path, int(1.5 * size), 0.0, HOUR)
    assert [one.about.hour for one in folder.read(tmp_path, "m", HOUR).windows] == [HOUR]
    folder.remove_oldest(tmp_path, 1, 0.0, HOUR)
    assert folder.models(tmp_path) == ["m"]
