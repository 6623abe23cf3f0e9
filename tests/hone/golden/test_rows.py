"""Golden rows that were edited, are of another model or let everything pass are refused, in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.artifact import Artifact
from hone.converters.proof.golden import MOST_BYTES, Taken, how_many, synthetic
from hone.errors import ArtifactError
from hone.golden.rows import FILE, GoldenRows, read_rows, write_rows
from hone.golden.tolerance import FLOORS, tolerances
from tests import goldens


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    folder = tmp_path_factory.mktemp("golden")
    return goldens.taken(goldens.sealed(folder / "sound", goldens.network()), goldens.rows(), folder / "scratch")


@pytest.fixture
def artifact(tmp_path: Path, golden: Taken) -> Artifact:
    return goldens.with_golden(tmp_path / "made", goldens.sealed(tmp_path / "plain", goldens.network()), golden)


def read(artifact: Artifact) -> GoldenRows:
    opened = Artifact.open(artifact.path)
    assert opened.manifest.golden is not None
    return read_rows(opened.path, opened.manifest.golden, opened.signature)


def edited(artifact: Artifact, change: Callable[[Any], object]) -> None:
    file = artifact.path / "artifact.json"
    content = json.loads(file.read_text())
    change(content["golden"])
    file.write_text(json.dumps(content))


def test_golden_rows_are_the_proofs_and_change_no_digest(tmp_path: Path, artifact: Artifact, golden: Taken) -> None:
    rows = read(artifact)
    assert rows.count == golden.rows.count == 256  # type: ignore[union-attr]
    assert artifact.digest == Artifact.open(tmp_path / "plain").digest
    assert FILE in artifact.manifest.files
    again = write_rows(tmp_path, rows).read_bytes()
    assert again == (artifact.path / FILE).read_bytes()


def test_edited_rows_are_refused_by_their_hash(artifact: Artifact) -> None:
    rows = read(artifact)
    rows.outputs["left"][0, 0] += 1
    write_rows(artifact.path, rows)
    with pytest.raises(ArtifactError, match=r"golden\.npz: corrupt"):
        read(artifact)


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), 1e-400])
def test_tolerance_of_nothing_or_everything_is_refused(artifact: Artifact, value: float) -> None:
    edited(artifact, lambda golden: golden["outputs"]["left"].update(largest=value))
    with pytest.raises(ArtifactError, match=r"artifact\.json: golden\.outputs\.left\.largest"):
        read(artifact)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda golden: golden["outputs"]["left"].update(mean=1e9), "as wide as its values"),
        (lambda golden: golden["joined"]["left"].update(largest=1e9), "as wide as its values"),
        (lambda golden: golden["outputs"]["left"].update(mean=None), "go together"),
        (lambda golden: golden["outputs"]["left"].update(mean=None, largest=None), "says neither"),
        (lambda golden: golden["outputs"]["left"].update(mean=None, largest=None, equal=0.5), "how far values"),
        (lambda golden: golden["outputs"].pop("left"), "answers of another signature"),
        (lambda golden: golden.update(outputs={}), "at least 1"),
        (lambda golden: golden.update(rows=12), "holds other than the 12 rows"),
        (lambda golden: golden.update(file="model.onnx"), "is not one of its other files"),
        (lambda golden: golden.update(file="../golden.npz"), "is not one of its other files"),
        (lambda golden: golden.update(file="gone.npz"), "is not one of its other files"),
    ],
)
def test_edited_record_is_refused(artifact: Artifact, change: Callable[[Any], object], words: str) -> None:
    edited(artifact, change)
    with pytest.raises(ArtifactError, match=words):
        read(artifact)


def test_rows_of_another_signature_are_refused(tmp_path: Path, golden: Taken) -> None:
    assert golden.rows is not None and golden.record is not None
    rows = GoldenRows({"ids": golden.rows.inputs["ids"][:, :3], "x": golden.rows.inputs["x"]}, golden.rows.outputs)
    other = goldens.with_golden(
        tmp_path / "other", goldens.sealed(tmp_path / "plain", goldens.network()), Taken(golden.record, rows)
    )
    with pytest.raises(ArtifactError, match=r"rows of another signature: input 'ids' has shape .*expected"):
        read(other)


def test_file_that_is_no_archive_is_refused(tmp_path: Path, golden: Taken) -> None:
    (tmp_path / FILE).write_bytes(b"PK\x03\x04 no archive")
    assert golden.record is not None
    with pytest.raises(ArtifactError, match="golden rows that can't be read"):
        read_rows(tmp_path, golden.record, goldens.SIGNATURE)


@pytest.mark.parametrize("rounded", list(FLOORS))
def test_tolerance_is_never_nothing(rounded: str) -> None:
    for values in (np.zeros((4, 2)), np.full((4, 2), 3.0), np.eye(4), np.full((4, 2), np.nan), np.eye(4) * 1e-30):
        (found,) = tolerances({"y": values.astype(np.float32)}, [], rounded).values()
        assert found.largest and found.mean and np.isfinite(found.largest) and np.isfinite(found.mean)


def test_tolerance_covers_the_spread_of_repeats() -> None:
    generator = np.random.default_rng(0)
    reference = generator.normal(size=(64, 3))
    repeats = [{"y": reference + generator.normal(0, 0.01, reference.shape)} for _ in range(4)]
    (found,) = tolerances({"y": reference}, repeats, "float").values()
    spread = max(np.abs(repeat["y"] - reference).max() for repeat in repeats)
    assert found.largest == pytest.approx(3 * spread) and found.mean is not None and found.mean < found.largest


def test_rows_are_fewer_where_they_are_slow_or_large() -> None:
    rows = {"x": np.zeros((1000, 4), np.float32)}
    assert [how_many(rows, {}, seconds) for seconds in (1e-5, 1e-3, 0.1)] == [256, 100, 32]
    assert how_many({"x": np.zeros((1000, 3, 224, 224), np.uint8)}, {}, 1e-5) == 53
    assert how_many({"x": np.zeros((5, 4), np.float32)}, {}, 1e-5) == 5


def test_rows_are_fewer_where_their_answers_are_large() -> None:
    """A mask for each pixel: what a load reads is bounded, so that many of them would make the artifact unservable."""
    rows, masks = {"x": np.zeros((100, 4), np.float32)}, {"mask": np.zeros((100, 21, 128, 128), np.float32)}
    count = how_many(rows, masks, 0.1)
    assert count == 5
    assert count * masks["mask"][0].nbytes < MOST_BYTES
    assert how_many({"text": np.array(["short"] * 9 + ["long" * 250_000], dtype=object)}, {}, 0.1) == 2


def test_made_up_rows_hold_nothing_of_the_data_but_its_ranges(tmp_path: Path) -> None:
    data = goldens.rows()
    made = synthetic(data, 40)
    assert made is not None and set(made) == set(data)
    assert made["x"].min() >= data["x"].min() and made["x"].max() <= data["x"].max()
    assert set(np.unique(made["ids"])) <= set(range(goldens.WORDS))
    assert not set(map(bytes, made["x"])) & set(map(bytes, data["x"]))
    assert synthetic({"text": np.array(["a"], object)}, 3) is None
    plain = goldens.sealed(tmp_path / "plain", goldens.network())
    taken = goldens.taken(plain, data, tmp_path / "scratch", real=False)
    assert taken.record is not None and taken.record.source == "synthetic"
    assert taken.rows is not None and not set(map(bytes, taken.rows.inputs["x"])) & set(map(bytes, data["x"]))


def test_rows_that_no_load_would_read_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hone.converters.proof.golden.MOST_READ", 1000)
    plain = goldens.sealed(tmp_path / "plain", goldens.network())
    taken = goldens.taken(plain, goldens.rows(40), tmp_path / "scratch")
    assert taken.rows is None and taken.record is None
    assert taken.reason == "40 of them, the fewest, take 0 MB with their answers"
