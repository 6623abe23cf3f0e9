from __future__ import annotations

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from hone import runtimes
from hone.converters.passes.export.providers import Options
from hone.converters.run.plan import make_plan
from hone.hardware import gpu_name
from hone.recipe import load_recipe
from hone.runtimes.onnx.runtime import OnnxRuntime, usable_providers
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench

no_gpu = pytest.mark.skipif(gpu_name() is not None, reason="this host has a GPU")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, perceptron_signature(), perceptron_rows())


def test_artifact_carries_order_and_options(bench: Bench) -> None:
    placed = bench.run(
        "providers",
        bench.artifact(perceptron()),
        order=["cuda", "cpu"],
        options={"cuda": {"cudnn_conv_algo_search": "HEURISTIC"}},
    )
    options = placed.manifest.runtime_options
    assert options["providers"] == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert options["provider_options"] == {"CUDAExecutionProvider": {"cudnn_conv_algo_search": "HEURISTIC"}}
    assert OnnxRuntime.check_host(placed) == ""


@no_gpu
def test_fallback_is_said_aloud(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    placed = bench.run("providers", bench.artifact(perceptron()), order=["tensorrt", "cuda", "cpu"])
    with caplog.at_level(logging.WARNING):
        runtime = runtimes.load(placed, 1)
    assert "this host has no Tensorrt provider, CPU computes" in caplog.text
    assert runtime.run(bench.rows)["y"].shape == (64, 8)


@no_gpu
def test_without_cpu_in_the_order_a_cpu_host_is_refused(bench: Bench) -> None:
    artifact = bench.artifact(perceptron())
    placed = artifact.with_manifest(runtime_options={"providers": ["CUDAExecutionProvider"]})
    assert OnnxRuntime.check_host(placed) == "needs ONNX Runtime's CUDA provider, this host has none"
    assert usable_providers().count("CPUExecutionProvider") == 1


@no_gpu
def test_variant_is_skipped_where_its_first_provider_is_missing(bench: Bench) -> None:
    text = bench.recipe.read_text().replace("- onnx-fp32", "- onnx-fp32\n- onnx-cuda-fp16\n- tensorrt-bf16")
    bench.recipe.write_text(text)
    plan = make_plan(load_recipe(bench.recipe), "onnx")
    reasons = {variant.name: str(variant.unavailable or "") for variant in plan.variants}
    assert reasons["onnx-fp32"] == ""
    assert "no cuda provider on this host; on a host with an NVIDIA GPU run" in reasons["onnx-cuda-fp16"]
    assert "CUDA provider, which this host lacks" in reasons["tensorrt-bf16"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"order": ["cuda", "cuda"]}, "stands twice"),
        ({"order": []}, "at least 1 item"),
        ({"order": ["rocm"]}, "Input should be 'cpu'"),
        ({"order": ["cpu"], "options": {"cuda": {"x": 1}}}, "'cuda' is not in order"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Options.model_validate(options)
