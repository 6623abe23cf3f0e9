from __future__ import annotations

from pathlib import Path

import pytest

from hone import store
from hone.errors import ArtifactError, StoreError
from tests.models.dense import dense_artifact


def test_stored_artifact_is_found_by_name_variant_and_version(tmp_path: Path, home: Path) -> None:
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "onnx-fp32-1")
    assert entry.path == home / "bentoml" / "models" / "dense" / "onnx-fp32-1"
    for reference in ("dense", "dense:latest", "dense:onnx-fp32", "dense:onnx-fp32-1", "dense:onnx-fp32-"):
        assert store.resolve(reference).tag == entry.tag
    assert store.resolve("dense").opened().digest == dense_artifact(tmp_path / "b").digest


def test_bentoml_reads_what_hone_stored(tmp_path: Path) -> None:
    import bentoml

    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "onnx-fp32-1")
    model = bentoml.models.get("dense:latest")
    assert str(model.tag) == entry.tag
    assert model.info.labels["variant"] == "onnx-fp32"


def test_flipped_byte_is_named_on_load(tmp_path: Path) -> None:
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "onnx-fp32-1")
    file = entry.path / "model.onnx"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactError, match=r"model\.onnx: corrupt"):
        entry.opened()


def test_entry_is_never_overwritten(tmp_path: Path) -> None:
    store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    with pytest.raises(StoreError, match="already"):
        store.put(dense_artifact(tmp_path / "b", seed=1), "dense", "v1")


def test_serving_set_ends_at_the_first_portable_entry(tmp_path: Path) -> None:
    for rank, variant in enumerate(("onnx-int8", "onnx-fp32")):
        store.put(dense_artifact(tmp_path / variant, variant=variant, rank=rank), "dense", f"{variant}-1")
    assert [entry.version for entry in store.serving_set("dense")] == ["onnx-int8-1"]


@pytest.mark.parametrize("name", ["../victim", "..", "", "a/b", "A", "x\ny", "x\n", "a" * 64, "-a", "a b", "a\\b"])
def test_names_that_are_no_tags_stay_out_of_the_store(tmp_path: Path, home: Path, name: str) -> None:
    artifact = dense_artifact(tmp_path / "a")
    before = sorted(home.rglob("*"))
    for tag in ((name, "v1"), ("dense", name)):
        with pytest.raises(StoreError, match=r"must be 1-63 of a-z"):
            store.put(artifact, *tag)
    assert sorted(home.rglob("*")) == before


def test_reference_never_leads_out_of_the_store(tmp_path: Path, home: Path) -> None:
    """Whatever the entrance: the command line, the environment and the repository API all resolve a reference."""
    store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    outside = tmp_path / "outside"
    (home / "bentoml" / "models" / "dense").rename(outside)
    for name in (str(outside), "../../../outside", "..", "", "."):
        assert store.entries(name) == []
        with pytest.raises(StoreError, match="no model"):
            store.resolve(f"{name}:v1")


def test_link_out_of_the_store_is_shown_and_not_opened(tmp_path: Path, home: Path) -> None:
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    entry.path.rename(tmp_path / "outside")
    entry.path.symlink_to(tmp_path / "outside")
    (found,) = store.entries("dense")
    assert "a link that leads out of the store" in found.error
    with pytest.raises(ArtifactError, match="leads out of the store"):
        found.opened()


def test_model_folder_that_is_a_link_takes_no_new_entry(tmp_path: Path, home: Path) -> None:
    (tmp_path / "outside").mkdir()
    (home / "bentoml" / "models" / "dense").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="a link that leads out of the store"):
        store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    assert list((tmp_path / "outside").iterdir()) == []


def test_store_on_another_disk_may_be_a_link(tmp_path: Path, home: Path) -> None:
    models = home / "bentoml" / "models"
    models.rename(tmp_path / "disk")
    models.symlink_to(tmp_path / "disk")
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    assert store.resolve("dense").opened().digest == entry.opened().digest


def test_unknown_model_names_the_nearest(tmp_path: Path) -> None:
    store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    with pytest.raises(StoreError, match="did you mean 'dense'"):
        store.resolve("dens")
