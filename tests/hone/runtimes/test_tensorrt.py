"""TensorRT up to the native call: profiles, requirements and what a host without a GPU is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from hone import runtimes, store
from hone.converters.passes.export.tensorrt import Options
from hone.errors import PassError, UnavailableError
from hone.hardware import gpu_name
from hone.runtimes.tensorrt.engine import EngineOptions, engine_file, host_mismatch, profile_shapes, requirements
from hone.runtimes.tensorrt.runtime import layer_types, max_rows
from hone.signature import Signature, TensorSpec
from tests.models.dense import dense_artifact

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="ids", dtype="int64", shape=("batch", "sequence")),
        TensorSpec(name="scale", shape=(1,)),
        TensorSpec(name="image", shape=("batch", 3, 8, 8)),
    )
)


def test_profile_covers_every_dynamic_input() -> None:
    shapes = profile_shapes(SIGNATURE, {"batch": (1, 8, 64), "sequence": (8, 32, 128)})
    assert shapes == {
        "ids": ((1, 8), (8, 32), (64, 128)),
        "image": ((1, 3, 8, 8), (8, 3, 8, 8), (64, 3, 8, 8)),
    }


def test_axis_without_a_profile_is_named() -> None:
    with pytest.raises(PassError, match=r"'sequence' has no profile; set option profiles: \{sequence:"):
        profile_shapes(SIGNATURE, {"batch": (1, 8, 64)})


def test_profile_of_no_axis_is_refused() -> None:
    with pytest.raises(PassError, match="names 'tokens'"):
        profile_shapes(SIGNATURE, {"batch": (1, 8, 64), "sequence": (1, 2, 3), "tokens": (1, 2, 3)})


@pytest.mark.parametrize("sizes", [(0, 1, 2), (4, 2, 8), (1, 9, 8)])
def test_sizes_must_rise(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValidationError, match="must rise"):
        Options(profiles={"batch": sizes})


@pytest.mark.parametrize(
    ("options", "gpu", "tensorrt", "mismatch"),
    [
        ({}, "sm_90", "11.4.0.106", ""),
        ({}, "sm_80", "11.4.0.106", "built for sm_90, this host has sm_80"),
        ({}, "sm_90", "11.5.0.1", "built with TensorRT 11.4.0.106, this host has 11.5.0.1"),
        ({}, "none", "", "built for sm_90, this host has none"),
        ({"hardware": "ampere_plus"}, "sm_86", "11.4.0.106", ""),
        ({"hardware": "ampere_plus"}, "sm_75", "11.4.0.106", "needs a GPU of sm_80"),
        ({"version_compatible": True}, "sm_90", "12.0", ""),
        ({"version_compatible": True}, "sm_90", "10.0", "needs TensorRT 11"),
    ],
)
def test_engine_is_matched_with_the_host(options: dict[str, object], gpu: str, tensorrt: str, mismatch: str) -> None:
    requires = requirements(EngineOptions.of(options), "sm_90", "11.4.0.106")
    found = host_mismatch(requires, gpu, tensorrt)
    assert mismatch in found
    assert bool(found) == bool(mismatch)


def test_largest_batch_is_the_profiles(tmp_path: Path) -> None:
    artifact = dense_artifact(tmp_path / "a")
    assert max_rows(artifact.with_manifest(runtime_options={"profiles": {"batch": [1, 8, 32]}})) == 32


def test_engine_for_another_gpu_is_built_here_once_from_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    options = {"profiles": {"batch": [1, 4, 16]}, "sparse_weights": True, "unknown": 1}
    artifact = dense_artifact(tmp_path / "a").with_manifest(
        runtime_options=options, requires={"gpu": "sm_90", "tensorrt": "11.4.0.106"}
    )
    calls: list[tuple[Path, EngineOptions]] = []

    def make(graph: Path, signature: Signature, options: EngineOptions) -> tuple[bytes, int]:
        calls.append((graph, options))
        if len(calls) == 1:
            raise PassError("tensorrt: node 'n' (Odd): no converter")
        return b"engine", 3

    assert engine_file(artifact, "sm_90", "11.4.0.106", make) == artifact.entry
    with pytest.raises(PassError, match="no converter"):
        engine_file(artifact, "sm_80", "11.4.0.106", make)
    built = engine_file(artifact, "sm_80", "11.4.0.106", make)
    assert "built for sm_90, this host has sm_80; building one for this host" in caplog.text
    assert built.read_bytes() == b"engine"
    assert engine_file(artifact, "sm_80", "11.4.0.106", make) == built
    assert len(calls) == 2
    graph, told = calls[1]
    assert graph == artifact.path / "model.onnx"
    assert told.profiles == {"batch": (1, 4, 16)} and told.sparse_weights
    assert engine_file(artifact, "sm_80", "12.0", make) != built


@pytest.mark.skipif(gpu_name() is not None, reason="this host has a GPU")
def test_host_without_gpu_is_told_where_to_go(tmp_path: Path) -> None:
    runtime = runtimes.runtime_class("tensorrt")
    with pytest.raises(UnavailableError, match="no NVIDIA GPU on this host; on a host with an NVIDIA GPU run"):
        runtime.require()
    artifact = dense_artifact(tmp_path / "a", variant="tensorrt-fp16").with_manifest(runtime="tensorrt")
    entry = store.put(artifact, "dense", "tensorrt-fp16-1")
    assert store.host_problem(entry) == "no NVIDIA GPU on this host"


@pytest.mark.parametrize(
    ("told", "types"),
    [
        (
            '{"Layers": [{"Name": "a", "LayerType": "CaskConvolution"}, {"Name": "b"}]}',
            {"a": "CaskConvolution", "b": "b"},
        ),
        ('{"Layers": ["a", "b"], "Bindings": []}', {}),
        ("{}", {}),
    ],
    ids=["detailed", "names-only", "none"],
)
def test_types_of_layers_are_those_that_the_engine_keeps(told: str, types: dict[str, str]) -> None:
    class Inspector:
        def get_engine_information(self, form: str) -> str:
            return told if form == "JSON" else ""

    assert layer_types(Inspector(), "JSON") == types
