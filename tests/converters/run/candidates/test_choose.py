"""What `variants: auto` stands for: presets that fit are made and tried in one process, the hopeless are left out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml

from hone.converters.context import Rows
from hone.converters.graph.contents import Contents
from hone.converters.run.candidates.choose import Choosing, Chosen, with_chosen
from hone.converters.run.candidates.facts import Facts, Host
from hone.converters.run.candidates.rules import Rule
from hone.converters.run.candidates.trials import Trial, run_trials
from hone.converters.run.pipeline import Pipeline
from hone.converters.run.plan import make_plan
from hone.converters.run.prepare import Prepared, prepare
from hone.converters.run.workers import Workers, guarded
from hone.errors import RecipeError
from hone.recipe import VariantSpec, load_recipe
from tests.models.perceptron import perceptron, perceptron_rows


class Here(Workers):
    """Workers that run what they are asked in this process."""

    def __init__(self) -> None:
        self._jobs = 1

    def call(self, function: Any, *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(guarded(function, *arguments))
        return future


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A recipe of a perceptron of which little is said."""
    onnx.save(perceptron(), tmp_path / "net.onnx")
    np.savez(tmp_path / "rows.npz", **perceptron_rows(100))
    rows = [{"from": "rows.npz", "share": share} for share in ([0, 0.4], [0.4, 1])]
    content = {"name": "net", "source": {"file": "net.onnx"}, "calibration": rows[0], "evaluation": rows[1]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    return tmp_path / "recipe.yaml"


def choosing(
    recipe: Path, workers: Workers | None = None, message: Callable[[str], None] = lambda _: None, **changes: Any
) -> Choosing:
    if changes:
        recipe.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), **changes}))
    loaded, workers = load_recipe(recipe), workers or Here()
    prepared = prepare(recipe, recipe.parent / "sources", recipe.parent / "evaluation.npz")
    return Choosing(loaded, prepared, workers, Pipeline(loaded, prepared, workers), message)


def names(chosen: Chosen) -> list[str]:
    return [str(spec) for spec in chosen.specs]


def test_rules_alone_try_nothing_and_say_what_waits(project: Path) -> None:
    chosen = choosing(project).by_rules()
    assert {"onnx-fp32", "onnx-int8-dynamic", "onnx-int8-static"} <= set(names(chosen))
    assert not any(one.tried for one in chosen.candidates)
    assert "3 matrix products" in chosen.facts[0]
    by_name = {one.name: one for one in chosen.candidates}
    assert by_name["onnx-fused-fp32"].reason == "the graph has no attention"


def test_trials_show_what_is_hopeless_and_the_float_graph_stays(project: Path) -> None:
    chosen = choosing(project, budget={"size_mb": 0.015}).by_trials()
    tried = {one.name: one for one in chosen.candidates if one.tried}
    assert {"onnx-fp32", "onnx-int8-dynamic", "onnx-int8-static"} <= set(tried)
    for one in tried.values():
        assert one.ms and one.size_mb and one.loss is not None and one.reason
        assert one.chosen == (one.name in names(chosen))
    assert tried["onnx-fp32"].loss == 0
    left = {one.name: one.reason for one in chosen.candidates if not one.chosen}
    assert "0.015 are allowed" in left["openvino-fp32"]
    assert "onnx-fp32" in names(chosen), "the report says how far it is from the limit"


def test_without_calibration_rows_nothing_is_tried(project: Path) -> None:
    chosen = choosing(project, calibration=None).by_trials()
    assert not any(one.tried for one in chosen.candidates)
    assert {"onnx-fp32", "onnx-int8-dynamic"} <= set(names(chosen)) and "onnx-int8-static" not in names(chosen)


class Dying(Workers):
    """Workers of which the one that tries candidates dies, as where memory runs out."""

    def call(self, function: Any, *arguments: Any) -> Future[Any]:
        return super().call(os._exit, 9) if function is run_trials else super().call(function, *arguments)


def test_trials_that_die_are_told_and_leave_nothing_out(project: Path) -> None:
    told: list[str] = []
    workers = Dying(1, lambda _: None)
    try:
        chosen = choosing(project, workers, told.append).by_trials()
    finally:
        workers.close()
    assert {"onnx-fp32", "onnx-int8-dynamic", "onnx-int8-static"} <= set(names(chosen))
    assert not any(one.tried for one in chosen.candidates)
    for lines in (told, list(chosen.facts)):
        assert any(line.startswith("trials failed: the worker process was killed") for line in lines)


def test_what_needs_no_graph_is_made_where_the_export_fails_which_is_tried_once(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    pytest.importorskip("tensorflow")
    keras = pytest.importorskip("keras")
    features = keras.Input((4,), name="features")
    keras.Model(features, keras.ops.expm1(keras.layers.Dense(64)(features))).save(tmp_path / "net.keras")
    np.savez(tmp_path / "rows.npz", features=np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    content = {"name": "net", "source": {"file": "net.keras"}, "calibration": "rows.npz", "evaluation": "rows.npz"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
    told: list[str] = []
    chosen = choosing(tmp_path / "recipe.yaml", message=told.append).by_trials()
    assert told.count("export") == 1
    assert set(names(chosen)) == {"onnx-fp32", "litert", "litert-dynamic", "litert-int8"}
    assert "graph: not known, onnx-fp32 could not be made: export: " in chosen.facts[0]
    left = {one.name: one.reason for one in chosen.candidates if not one.chosen}
    assert "has no ONNX counterpart" in left["onnx-int8-dynamic"] and left["openvino-fp32"] == left["onnx-fp16"]
    assert "no size is asked for" in left["litert-fp16"]


class Told(Choosing):
    """An encoder's graph, and trials that show what they are told to."""

    def __init__(self, recipe: Path, **losses: float | None) -> None:
        loaded, workers = load_recipe(recipe), Here()
        prepared = Prepared(recipe.parent, Rows(recipe.parent / "rows.npz", None), "", "onnx")
        super().__init__(loaded, prepared, workers, Pipeline(loaded, prepared, workers), lambda _: None)
        self._losses = losses
        self.begun: list[list[str]] = []

    def facts(self) -> Facts:
        graph = Contents(dense=36, attention=6, weights=90.0, in_dense=0.5, in_tables=0.5)
        host = Host("a processor", bfloat16=False, gpu="", apple=False, openvino="not installed")
        return Facts("onnx", True, graph, host, self._loaded.recipe)

    def _make_and_try(self, rules: Sequence[Rule], facts: Facts) -> None:
        self.begun.append([rule.preset for rule in rules])
        for rule in rules:
            loss = self._losses.get(rule.preset.replace("-", "_"), 0.0)
            few = "8 calibration rows are too few to tell its loss" if loss is None else ""
            self._trials[rule.preset] = Trial(ms=1.0, size_mb=1.0, loss=loss, allowed=0.01, unjudged=few)


def test_what_costs_minutes_is_made_where_int8_loses_too_much(project: Path) -> None:
    at_once = ["onnx-fp32", "onnx-fused-fp32", "onnx-int8-dynamic", "onnx-fused-int8"]
    fine = Told(project)
    chosen = fine.by_trials()
    assert fine.begun == [at_once, ["onnx-int8-tuned"]]
    reasons = {one.name: one.reason for one in chosen.candidates}
    assert reasons["onnx-smooth-int8-tuned"] == "onnx-int8-dynamic keeps to the budget"
    assert reasons["onnx-smooth-mixed"] == "onnx-smooth-int8-tuned was not tried"
    lossy = Told(project, onnx_int8_dynamic=0.02)
    lossy.by_trials()
    assert lossy.begun == [at_once, ["onnx-smooth-int8-tuned", "onnx-fused-weights-int8"]]
    worse = Told(project, onnx_int8_dynamic=0.02, onnx_smooth_int8_tuned=0.02)
    worse.by_trials()
    assert worse.begun[2:] == [["onnx-smooth-mixed"]]


def test_a_loss_that_is_not_known_is_no_trial_that_was_not_made(project: Path) -> None:
    reasons = {one.name: one.reason for one in Told(project, onnx_int8_dynamic=None).by_trials().candidates}
    assert reasons["onnx-smooth-int8-tuned"] == "onnx-int8-dynamic: 8 calibration rows are too few to tell its loss"


def test_half_of_the_time_limit_is_for_the_choice(project: Path) -> None:
    late = Told(project, onnx_int8_dynamic=0.02)
    chosen = late.by_trials(minutes=0.0)
    assert len(late.begun) == 1
    assert "half of the time limit was over" in {one.reason for one in chosen.candidates}


def test_presets_take_the_place_of_auto_and_a_name_of_ones_own_stays(project: Path) -> None:
    own = [{"preset": "onnx-fp16", "name": "first"}, "auto", {"preset": "onnx-int8-static", "options": {}}]
    loaded = load_recipe(_with(project, own))
    made = with_chosen(loaded, [VariantSpec(preset="onnx-fp32"), VariantSpec(preset="onnx-int8-static")])
    assert [str(spec) for spec in made.recipe.variants] == ["first", "onnx-fp32", "onnx-int8-static"]
    assert [variant.name for variant in make_plan(made, "onnx").variants] == ["first", "onnx-fp32", "onnx-int8-static"]


@pytest.mark.parametrize(
    ("variants", "words"),
    [
        ([{"preset": "auto", "name": "mine"}], "'auto' stands for several presets"),
        ([], "variants: needs at least 1"),
        ("onnx-fp32", "variants: input should be a valid"),
    ],
)
def test_variants_that_are_neither_auto_nor_a_list_are_refused(project: Path, variants: Any, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load_recipe(_with(project, variants))


def test_a_recipe_without_variants_is_auto(project: Path) -> None:
    assert load_recipe(project).recipe.is_auto
    assert load_recipe(_with(project, "auto")).recipe.is_auto
    assert not load_recipe(_with(project, ["onnx-fp32"])).recipe.is_auto


def _with(recipe: Path, variants: Any) -> Path:
    recipe.write_text(yaml.safe_dump({**yaml.safe_load(recipe.read_text()), "variants": variants}))
    return recipe
