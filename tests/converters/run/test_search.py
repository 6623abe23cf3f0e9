"""A search on a real model: it ends in time, goes on where it ended, and never does worse than the presets."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from hone.cli.main import cli
from hone.converters.run.search import Trial, _prefix, finalists
from hone.converters.run.search_space import for_recipe
from hone.recipe import load_recipe
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench

pytest.importorskip("optuna")


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    bench = Bench(
        tmp_path,
        perceptron_signature(),
        perceptron_rows(),
        measure={"batches": [1], "threads": [1], "rounds": 3},
        budget={"quality_drop": 0.01, "at": {"batch": 1, "threads": 1}},
    )
    import onnx

    onnx.save(perceptron(), tmp_path / "model.onnx")
    return bench.recipe


def hone(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_search_keeps_its_time_resumes_and_beats_or_equals_the_presets(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    started = time.monotonic()
    text = hone("optimize", str(recipe), "--search", "--minutes", "1", "--out", str(out))
    assert time.monotonic() - started < 90  # a minute, and what the last trial and a busy machine take
    assert "chains tried" in text
    report = json.loads((out / "report.json").read_text())
    names = [variant["name"] for variant in report["variants"]]
    assert "onnx-fp32" in names and "search-1" in names
    trials = json.loads((out / "search.json").read_text())["trials"]
    assert len(trials) >= 3
    assert (report["selection_rows"], report["evaluation_rows"]) == (21, 43)
    measured = {variant["name"]: variant for variant in report["variants"]}
    rates = {name: found["rows_per_s_batch1"] for name, found in measured.items() if found["eligible"]}
    assert measured[report["winner"]]["rank"] == 0 and rates
    hone("optimize", str(recipe), "--search", "--minutes", "0.8", "--out", str(out))
    again = json.loads((out / "search.json").read_text())["trials"]
    assert again[: len(trials)] == trials and len(again) > len(trials)
    chains = [json.dumps(trial["passes"]) for trial in again]
    assert len(set(chains)) == len(chains)
    # This graph has no attention: the pass says so once, and no chain goes through it again.
    assert sum("fuse" in chain for chain in chains) == 1


def test_search_doesnt_go_with_a_choice_of_variants(recipe: Path) -> None:
    result = CliRunner().invoke(cli, ["optimize", str(recipe), "--search", "--only", "onnx-fp32"])
    assert result.exit_code == 2 and "leave --only and --dry-run out" in result.output


def test_finalists_are_the_front_within_the_budget_first() -> None:
    chains = [({"export": {}}, {f"p{index}": {}}) for index in range(5)]
    trials = [
        Trial(chains[0], 4.0, 0.05),
        Trial(chains[1], 3.0, 0.005),
        Trial(chains[2], 2.0, 0.02),  # slower and worse than the one before
        Trial(chains[3], 1.0, 0.0),
        Trial(chains[4], problem="could not be built"),
    ]
    chosen = [spec.passes[1] for spec in finalists(trials, 0.01)]
    assert chosen == [{"p1": {}}, {"p3": {}}, {"p0": {}}]


def test_space_fits_the_source(recipe: Path) -> None:
    content = load_recipe(recipe).recipe
    space = for_recipe(content, "onnx")
    assert {"fuse", "simplify"} == set(space.choices["graph"])
    assert "quantize_static" in space.choices["precision"] and "prune" not in space.choices
    trees = for_recipe(content, "xgboost")
    assert trees.choices == {"graph": ("simplify",), "precision": ("float32",)}
    blind = for_recipe(content.model_copy(update={"calibration": None}), "onnx")
    assert "quantize_static" not in blind.choices["precision"] and "mixed" not in blind.choices
    for proposal in space.first():
        assert space.chain(proposal)[0] == {"export": {}}


def test_every_proposal_of_a_space_is_a_chain_of_its_own(recipe: Path) -> None:
    space = for_recipe(load_recipe(recipe).recipe, "onnx")
    chains = [json.dumps(space.chain(proposal)) for proposal in space.all()]
    assert len(set(chains)) == len(chains) > 50
    assert {json.dumps(space.chain(proposal)) for proposal in space.first()} <= set(chains)


def test_what_fails_after_pruning_fails_after_any() -> None:
    chain = ({"prune": {"ratio": 0.5}}, {"export": {}}, {"fuse": {}})
    assert _prefix(chain) == _prefix(chain[1:]) != _prefix(chain[1:2])
    assert _prefix(chain[:1]) != _prefix(({"prune": {"ratio": 0.25}},))
