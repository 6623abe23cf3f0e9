"""A variant that answers as its source does, but not on disturbed rows, is told apart, in processes of their own."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from hone.artifact import Artifact, Manifest, seal
from hone.converters.proof.evaluate import Subject
from hone.converters.proof.judge import make_judge
from hone.converters.proof.robustness.judged import Robustness
from hone.converters.proof.verdicts.claims import Claim, Evidence
from hone.converters.proof.verdicts.verdict import rule
from hone.data import Dataset, save_dataset
from hone.evidence.pairs import Pairs
from hone.recipe import load_recipe
from hone.signature import Signature, TensorSpec

ROWS, FEATURES = 400, 2
SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", shape=("batch", FEATURES)),),
    outputs=(TensorSpec(name="scores", shape=("batch", 2)),),
)


def model(folder: Path, *, steady: bool) -> Artifact:
    """Return which of two whole numbers is larger, as scores; a steady model rounds what it is given."""
    folder.mkdir(parents=True)
    weights, bias = np.array([[1, -1], [-1, 1]], np.float32), np.array([-0.05, 0.05], np.float32)
    rounded = [helper.make_node("Round", ["x"], ["whole"])] if steady else []
    graph = helper.make_graph(
        [*rounded, helper.make_node("Gemm", ["whole" if steady else "x", "w", "b"], ["scores"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(bias, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "m.onnx")
    manifest = Manifest(name="linear", runtime="onnx", precision="fp32", entry="m.onnx", signature=SIGNATURE)
    return seal(folder, manifest)


@dataclass
class Bench:
    """A source that withstands noise, on rows of whole numbers, and a recipe."""

    folder: Path
    known: dict[str, Robustness] = field(default_factory=dict)

    def of(self, artifact: Artifact, **recipe: Any) -> Evidence:
        """Return what a variant loses, which is as good as the source on the rows as they are."""
        asked = yaml.safe_dump(recipe)
        if asked not in self.known:
            self.known[asked] = self._asked(recipe)
        clean = Evidence(Claim("accuracy", 0.02, Pairs(0, 0, ROWS)))
        return clean.with_disturbed(self.known[asked].of(Subject("variant", artifact)))

    def _asked(self, recipe: dict[str, Any]) -> Robustness:
        rows = np.random.default_rng(0).integers(0, 5, (ROWS, FEATURES)).astype(np.float32)
        labels = (rows[:, 0] <= rows[:, 1]).astype(np.int64)
        save_dataset(Dataset({"x": rows}, labels), self.folder / "rows.npz")
        content = {
            "name": "linear",
            "source": {"file": "m.onnx"},
            "evaluation": "rows.npz",
            "quality": {"metric": "accuracy"},
            "variants": ["onnx-fp32"],
            **recipe,
        }
        (self.folder / "recipe.yaml").write_text(yaml.safe_dump(content))
        loaded = load_recipe(self.folder / "recipe.yaml")
        judge = make_judge(loaded, ["scores"], has_labels=True)
        source = Subject("source", Artifact.open(self.folder / "source"))
        return Robustness(loaded, judge, source, self.folder / "rows.npz", self.folder, lambda _: None)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("robust")
    model(folder / "source", steady=True)
    model(folder / "same", steady=True)
    model(folder / "fragile", steady=False)
    return Bench(folder)


LIMITED = {
    "budget": {"quality_drop": 0.02, "robustness_drop": "4%"},
    "robustness": {"perturbations": ["noise"], "severities": [1, 2]},
}


def test_a_variant_as_steady_as_its_source_is_met(bench: Bench) -> None:
    evidence = bench.of(Artifact.open(bench.folder / "same"), **LIMITED)
    assert [(one.kind, one.severity, one.rows) for one in evidence.disturbed] == [
        ("noise", severity, ROWS) for severity in (1, 2)
    ]
    (ruling,) = rule({"same": evidence}, 0.95).values()
    assert ruling.verdict == "met", ruling.reason


def test_a_more_fragile_variant_is_missed_though_it_answers_as_the_source_does(bench: Bench) -> None:
    evidence = bench.of(Artifact.open(bench.folder / "fragile"), **LIMITED)
    assert evidence.loss.met(0.95)
    (ruling,) = rule({"fragile": evidence}, 0.95).values()
    assert ruling.verdict == "missed"
    assert "accuracy under noise (severity 2) loses" in ruling.reason and "is allowed" in ruling.reason
    limits = [one.claim.allowed / (one.source or 0) for one in evidence.disturbed]
    assert limits == pytest.approx([0.04] * 2)


def test_without_a_limit_it_is_told_and_costs_no_verdict(bench: Bench) -> None:
    spec = {"perturbations": ["noise", "missing"], "severities": [3], "rows": 50}
    evidence = bench.of(Artifact.open(bench.folder / "fragile"), robustness=spec)
    assert [(one.kind, one.rows) for one in evidence.disturbed] == [("noise", 50), ("missing", 50)]
    assert evidence.others == () and evidence.disturbed[0].claim.bounds is not None
    assert rule({"fragile": evidence}, 0.95)["fragile"].verdict == "met"


def test_when_the_time_is_over_the_rows_that_were_answered_count(bench: Bench) -> None:
    spec = {"perturbations": ["noise"], "severities": [1], "seconds": 1e-9}
    evidence = bench.of(Artifact.open(bench.folder / "same"), robustness=spec)
    (found,) = evidence.disturbed
    assert found.rows == 32 and found.claim.bounds is not None and found.claim.bounds.upper(0.95) > 0.05


def test_a_variant_that_fails_on_disturbed_rows_is_not_proven(bench: Bench, tmp_path: Path) -> None:
    broken = model(tmp_path / "broken", steady=True)
    graph = onnx.load(broken.entry)
    graph.graph.node[-1].op_type = "MatMulInteger"
    onnx.save(graph, broken.entry)
    evidence = bench.of(seal(broken.path, broken.manifest), **LIMITED)
    (ruling,) = rule({"broken": evidence}, 0.95).values()
    assert ruling.verdict == "undecided" and "variant fails on disturbed rows" in ruling.reason
