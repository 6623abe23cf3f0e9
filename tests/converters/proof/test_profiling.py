"""Profiles that the proof takes beside its measurements, while they cost next to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hone.artifact import Artifact
from hone.converters.proof.probe_process import ProbeProcess
from hone.converters.proof.profiling import SHARE, Profiler
from hone.data import Dataset, save_dataset
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench


@dataclass
class Clock:
    now: float

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def proven(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Artifact, ProbeProcess]]:
    """A quantized perceptron, loaded in the process that proves it."""
    folder = tmp_path_factory.mktemp("proven")
    bench = Bench(folder, perceptron_signature(), perceptron_rows())
    artifact = bench.run("quantize_static", bench.artifact(perceptron()), exclude=["second"])
    save_dataset(Dataset(perceptron_rows()), folder / "evaluation.npz")
    probe = ProbeProcess("m", artifact.path, folder / "evaluation.npz", folder / "log")
    probe.answer()
    probe.ask("load", threads=1)
    yield artifact, probe
    probe.close()


def test_variant_in_its_process_tells_operators_and_findings(proven: tuple[Artifact, ProbeProcess]) -> None:
    found = Profiler(0.0, Clock(1e6)).profile(*proven, batch=64, load_s=0.01, call_s=0.001)
    assert found is not None
    assert {"QLinearMatMul", "MatMul"} <= {one.operator for one in found.operators}
    (left,) = (one for one in found.findings if one.kind == "left_in_float")
    assert left.nodes == ("second",) and left.line.endswith("the pass can't quantize them")


@pytest.mark.parametrize(("load_s", "call_s"), [(5.0, 0.001), (0.01, 3.0)])
def test_profile_that_would_cost_more_than_its_share_is_left_out(
    proven: tuple[Artifact, ProbeProcess], load_s: float, call_s: float
) -> None:
    clock = Clock(10 / SHARE)
    assert Profiler(0.0, clock).profile(*proven, batch=1, load_s=load_s, call_s=call_s) is None


def test_what_was_spent_counts(proven: tuple[Artifact, ProbeProcess]) -> None:
    ticks = iter([100.0, 101.9, 102.0])
    profiler = Profiler(0.0, lambda: next(ticks))
    assert profiler.profile(*proven, batch=1, load_s=0.01, call_s=0.001) is not None
    assert profiler.profile(*proven, batch=1, load_s=0.1, call_s=0.001) is None


def test_process_that_fails_leaves_the_variant_without_a_profile(
    proven: tuple[Artifact, ProbeProcess], tmp_path: Path
) -> None:
    artifact, _ = proven
    broken = ProbeProcess("m", artifact.path, tmp_path / "none.npz", tmp_path / "log")
    try:
        assert Profiler(0.0, Clock(1e6)).profile(artifact, broken, batch=1, load_s=0.01, call_s=0.001) is None
    finally:
        broken.close()
