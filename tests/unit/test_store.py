from __future__ import annotations

from pathlib import Path

import pytest

from hone import store
from hone.errors import ArtifactError, StoreError
from tests.models import dense_artifact


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


def test_export_and_import_keep_every_byte(tmp_path: Path) -> None:
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    digest = entry.opened().digest
    file = store.export(entry, tmp_path)
    store.remove(entry)
    assert store.entries() == []
    assert store.import_archive(file).opened().digest == digest


def test_serving_set_ends_at_the_first_portable_entry(tmp_path: Path) -> None:
    for rank, variant in enumerate(("onnx-int8", "onnx-fp32")):
        store.put(dense_artifact(tmp_path / variant, variant=variant, rank=rank), "dense", f"{variant}-1")
    assert [entry.version for entry in store.serving_set("dense")] == ["onnx-int8-1"]


def test_unknown_model_names_the_nearest(tmp_path: Path) -> None:
    store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    with pytest.raises(StoreError, match="did you mean 'dense'"):
        store.resolve("dens")
