"""On a host that isn't the proof's the best variants are timed anew, and int8 that would saturate is left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hone import store
from hone.artifact import Manifest, Selection
from hone.hardware import cpu_features, host
from hone.hardware.differences import differences
from hone.runtimes import version_here
from hone.runtimes.onnx.saturation import NEEDS, host_saturates, saturates
from hone.services.models.loading import candidates, load
from hone.services.models.ranking import ranked, to_rank
from hone.services.settings import Settings
from tests import goldens
from tests.passes import Bench

RUN = "20260101-000000-0000"
HERE = {**host(), "runtime": version_here("onnx")}
ELSEWHERE = {**HERE, "cores": 96, "cpu": "another"}


def slowed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that does a thousand times as much for the same answers."""
    graph = model.graph
    graph.initializer.append(numpy_helper.from_array(np.zeros((64, 6000), np.float32), "wide"))
    graph.initializer.append(numpy_helper.from_array(np.zeros((6000, 64), np.float32), "narrow"))
    nodes = list(graph.node)
    place = next(index for index, node in enumerate(nodes) if node.output[0] == "two_relu")
    nodes[place].output[0] = "two_plain"
    nodes[place + 1 : place + 1] = [
        helper.make_node("MatMul", ["two_plain", "wide"], ["far"]),
        helper.make_node("Exp", ["far"], ["far_exp"]),
        helper.make_node("MatMul", ["far_exp", "narrow"], ["near"]),
        helper.make_node("Add", ["two_plain", "near"], ["two_relu"]),
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    return model


@pytest.fixture
def stored(tmp_path: Path) -> list[store.Entry]:
    """The winner of a run on another host, which is slow here, and a fast one."""
    for rank, (variant, model) in enumerate((("slow", slowed(goldens.network())), ("fast", goldens.network()))):
        artifact = goldens.sealed(tmp_path / variant, model)
        selection = Selection(run=RUN, rank=rank, eligible=True, batch=1, threads=1, objective="latency")
        measured = goldens.proven(artifact, goldens.rows(), ELSEWHERE).measurements
        made = artifact.with_manifest(variant=variant, selection=selection, measurements=measured)
        store.put(made, "small", variant)
    return store.entries("small")


def test_the_fastest_here_goes_first_on_another_host(
    stored: list[store.Entry], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "hone.serving")
    assert [entry.version for entry in candidates("small", "", Settings())] == ["slow", "fast"]
    assert load(candidates("small", "", Settings()), Settings()).entry.version == "fast"
    assert f"cores {HERE['cores']}, at its proof 96" in caplog.text


def test_the_workers_of_a_server_rank_once(stored: list[store.Entry], tmp_path: Path) -> None:
    order = ranked(stored, Settings(), tmp_path / "shared")
    (known,) = (tmp_path / "shared").glob("ranking-*.json")
    known.write_text('{"small:slow": 1e-5, "small:fast": 1e-3}')
    assert [entry.version for entry in order] == ["fast", "slow"]
    assert [entry.version for entry in ranked(stored, Settings(), tmp_path / "shared")] == ["slow", "fast"]


@pytest.mark.parametrize("settings", [Settings(rerank=False), Settings(plan='{"kind": "plan"}')])
def test_ranking_is_left_out_when_told_or_planned(stored: list[store.Entry], settings: Settings) -> None:
    assert to_rank(stored[0], Settings()) and not to_rank(stored[0], settings)
    assert [entry.version for entry in ranked(stored, settings)] == ["slow", "fast"]
    assert [entry.version for entry in candidates("small", "", settings)] == ["slow"]


def test_differences_are_those_that_matter() -> None:
    assert differences(HERE, {**HERE, "memory_gb": 1, "python": "4", "cpu": "x"}) == []
    assert differences({}, HERE) == []
    assert differences({**HERE, "runtime": "onnx 1.0"}, HERE) == [f"runtime {HERE['runtime']}, at its proof onnx 1.0"]
    assert differences({**HERE, "cpu_features": [*reversed(HERE["cpu_features"])]}, HERE) == []


def test_int8_of_whole_range_requires_what_does_not_saturate(tmp_path: Path) -> None:
    bench = Bench(tmp_path, goldens.SIGNATURE, goldens.rows())
    source = bench.artifact(goldens.network())
    passes = ("quantize_dynamic", "quantize_static")
    for seven, requires in ((False, NEEDS), ("auto", {} if host_saturates() else NEEDS)):
        whole = [bench.run(name, source, reduce_range=seven) for name in passes]
        assert [artifact.manifest.requires for artifact in whole] == [requires] * 2
    narrow = (
        bench.run("quantize_dynamic", source, reduce_range=True),
        bench.run("quantize_dynamic", source, weight_type="quint8"),
        bench.run("quantize_static", source, reduce_range=True),
        bench.run("quantize_static", source, activation_type="qint8"),
    )
    assert [artifact.manifest.requires for artifact in narrow] == [{}] * 4
    mixed = bench.run("quantize_mixed", source, max_loss=10, options={"reduce_range": False})
    assert mixed.manifest.requires == NEEDS


def test_artifact_that_would_saturate_is_passed_over(tmp_path: Path) -> None:
    artifact = goldens.sealed(tmp_path / "int8", goldens.network(), requires=NEEDS)
    old, new = {"machine": "x86_64", "cpu_features": ["avx2"]}, {"machine": "x86_64", "cpu_features": ["avx_vnni"]}
    arm = {"machine": "aarch64", "cpu_features": ["asimddp"]}
    unknown = {"machine": "x86_64", "cpu_features": []}
    assert "saturate" in saturates(artifact, old)
    assert [saturates(artifact, facts) for facts in (new, arm, unknown)] == ["", "", ""]
    proven = goldens.proven(artifact, goldens.rows(), {**HERE, **old}).measurements
    assert saturates(artifact.with_manifest(measurements=proven), old) == ""


def test_choice_falls_to_a_variant_that_fits(tmp_path: Path) -> None:
    """What an artifact requires is no feature of this host, so it is as on a processor without VNNI."""
    for rank, (variant, needs) in enumerate((("int8", {"x86_features": "no_such"}), ("reduced", {}), ("fp32", {}))):
        selection = Selection(run=RUN, rank=rank, eligible=True)
        artifact = goldens.sealed(tmp_path / variant, goldens.network(), variant=variant, selection=selection)
        store.put(artifact.with_manifest(requires=needs), "small", variant)
    assert [entry.version for entry in store.serving_set("small")] == ["int8", "reduced"]
    if host()["machine"] != "x86_64" or not cpu_features():
        pytest.skip("saturation is of x86 processors")
    choice = store.choose(store.serving_set("small"))
    assert choice.entry.version == "reduced" and "saturate" in choice.passed_over[0]
    assert Manifest.model_validate(choice.entry.opened().manifest).requires == {}
