"""A training whose own parameters are searched for: within its budget, and on with what it has after a kill."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone.errors import HoneError, RecipeError
from hone.lifecycle.retrain import parameters
from hone.lifecycle.retrain.training import TRIALS, trained
from hone.recipe import LoadedRecipe, load_recipe
from tests.lifecycle.retrain.project import write_project

LEARN = """
import json, os, pathlib
out, given = pathlib.Path(os.environ["HONE_RETRAIN_OUT"]), json.loads(os.environ["HONE_RETRAIN_PARAMETERS"])
with open("tried", "a") as stream:
    stream.write(json.dumps(given) + chr(10))
if given["kind"] == "broken":
    raise SystemExit("it can't be learned")
(out / "model.onnx").write_text(json.dumps(given))
(out / "score").write_text(str(-abs(given["rate"] - 0.3) - abs(given["depth"] - 4)))
"""
SPACE = {
    "rate": {"low": 0.01, "high": 1.0, "log": True},
    "depth": {"low": 2, "high": 6, "integer": True},
    "kind": {"choices": ["tree", "broken"]},
}


def project(folder: Path, **search: Any) -> LoadedRecipe:
    file = write_project(folder, command="sh learn.sh")
    (folder / "learn.py").write_text(LEARN)
    (folder / "learn.sh").write_text("exec python3 -S learn.py\n")
    content = yaml.safe_load(file.read_text())
    content["retrain"]["search"] = {"parameters": SPACE, "goal": "maximize", "trials": 8, **search}
    file.write_text(yaml.safe_dump(content))
    return load_recipe(file)


def train(loaded: LoadedRecipe, tmp_path: Path) -> Path | None:
    (tmp_path / "out").mkdir(exist_ok=True)
    return trained(loaded, tmp_path / "out", tmp_path / "train.log", time.monotonic() + 60)


def tried(tmp_path: Path) -> list[dict[str, Any]]:
    return [yaml.safe_load(line) for line in (tmp_path / "p" / "tried").read_text().splitlines()]


@pytest.mark.slow
def test_the_best_of_the_trials_goes_on_and_one_that_fails_costs_itself(tmp_path: Path) -> None:
    loaded = project(tmp_path / "p")
    made = train(loaded, tmp_path)
    asked = tried(tmp_path)
    assert made == tmp_path / "out" / "model.onnx" and len(asked) == 8
    assert {one["depth"] for one in asked} <= {2, 3, 4, 5, 6} and "broken" in {one["kind"] for one in asked}
    best = min(
        (one for one in asked if one["kind"] == "tree"), key=lambda one: abs(one["rate"] - 0.3) + abs(one["depth"] - 4)
    )
    assert yaml.safe_load(made.read_text()) == best
    words = parameters.told(tmp_path / TRIALS)
    assert words.startswith("best of 8 trials: ") and f"depth {best['depth']}" in words


@pytest.mark.slow
@pytest.mark.parametrize("killed_in", ["_score", "_keep_best", "_tried"])
def test_a_search_that_is_killed_goes_on_with_the_trials_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_in: str
) -> None:
    class KilledError(BaseException):
        pass

    loaded, real, calls = project(tmp_path / "p", trials=5), getattr(parameters, killed_in), []

    def kills(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KilledError
        return real(*arguments)

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(parameters, killed_in, kills)
        train(loaded, tmp_path)
    before = len(tried(tmp_path))
    assert 0 < before < 5
    made = train(loaded, tmp_path)
    assert made is not None and len(tried(tmp_path)) == 5, "none was tried twice"
    good = [one for one in tried(tmp_path) if one["kind"] == "tree"]
    assert yaml.safe_load(made.read_text()) in good


def test_a_search_ends_in_its_time_with_the_model_of_one_trial(tmp_path: Path) -> None:
    loaded = project(tmp_path / "p", parameters={**SPACE, "kind": {"choices": ["tree"]}}, minutes=1e-6)
    assert train(loaded, tmp_path) is not None
    assert len(tried(tmp_path)) == 1


@pytest.mark.slow
def test_a_search_in_which_none_came_to_a_score_says_why(tmp_path: Path) -> None:
    loaded = project(tmp_path / "p", parameters={**SPACE, "kind": {"choices": ["broken"]}}, trials=2)
    with pytest.raises(HoneError, match=r"none of 2 trials came to a score: .*it can't be learned"):
        train(loaded, tmp_path)


@pytest.mark.parametrize(
    ("parameter", "words"),
    [
        ({"low": 1, "high": 0}, "the one below the other"),
        ({"low": 0, "high": 1, "log": True}, "'low' over 0"),
        ({"low": 0.5, "high": 2, "integer": True}, "whole numbers"),
        ({"choices": []}, "one at least"),
    ],
)
def test_a_wrong_parameter_is_named(tmp_path: Path, parameter: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words) as error:
        project(tmp_path / "p", parameters={"x": parameter})
    assert "retrain.search.parameters" in str(error.value) and os.linesep not in str(error.value)
