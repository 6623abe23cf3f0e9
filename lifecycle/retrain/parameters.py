"""The training's own parameters, searched for: trainings one after the other, of which the best gives the model.

Parameters are proposed by Optuna's TPE (Bergstra et al., Algorithms for hyper-parameter optimization, NIPS 2011). The
study is a file in the run's folder, so that a run which was killed goes on with the trials that it has.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import HoneError, UnavailableError, one_line
from hone.recipe import LoadedRecipe, TrainingSearchSpec

if TYPE_CHECKING:
    import optuna

PARAMETERS = "HONE_RETRAIN_PARAMETERS"
BEST, GIVEN = "best", "parameters.json"
SCORE = "score"
"""File that a training writes its figure to, beside the model."""

Train = Callable[[Path, Path, dict[str, str]], Path]
"""Trains: given a folder for what is written, a log and variables, returns the new model; raises HoneError."""


def searched(loaded: LoadedRecipe, spec: TrainingSearchSpec, out: Path, folder: Path, train: Train, end: float) -> Path:
    """Return the model of the best trial.

    Args:
        out: folder for it.
        folder: of the study, the trials' logs and the best of them so far; what is there is gone on with.
        train: trains once.
        end: of `time.monotonic`, after which no trial begins.

    Raises:
        UnavailableError: Optuna isn't installed.
        HoneError: no trial came to a score.
    """
    study = _opened(spec, folder)
    end = min(end, time.monotonic() + spec.minutes * 60)
    best, problem = folder / BEST, "there was no time for one"
    while len(_tried(study)) < spec.trials and (time.monotonic() < end or not _tried(study)):
        trial = study.ask()
        values = {name: _proposed(trial, name, one) for name, one in spec.parameters.items()}
        place = folder / f"trial-{trial.number}"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            train(place, folder / f"trial-{trial.number}.log", {PARAMETERS: json.dumps(values)})
            score = _score(place)
        except HoneError as error:
            problem = one_line(error)
            study.tell(trial, state=_states().FAIL)
            shutil.rmtree(place)
            if time.monotonic() >= end:
                break
            continue
        (place / GIVEN).write_text(json.dumps(values))
        _keep_best(spec, place, best, score)
        study.tell(trial, score)
        shutil.rmtree(place)
    if not best.is_dir():
        raise HoneError(f"none of {len(_tried(study))} trials came to a score: {problem}")
    shutil.copytree(best, out, dirs_exist_ok=True)
    made = loaded.trained_in(out)
    assert made is not None, "a trial without a model has failed"
    return made


def told(folder: Path) -> str:
    """Return in words what a search found."""
    found, trials = json.loads((folder / BEST / GIVEN).read_text()), len([*folder.glob("trial-*.log")])
    values = ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
                       for name, value in found.items())  # fmt: skip
    return f"best of {trials} trials: {values}; score {_score(folder / BEST):.6g}"


def _opened(spec: TrainingSearchSpec, folder: Path) -> optuna.Study:
    try:
        import optuna
    except ImportError:
        raise UnavailableError("retrain.search needs optuna", "pip install 'hone[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="training",
        storage=f"sqlite:///{folder / 'study.sqlite'}",
        direction=spec.goal,
        sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=min(8, max(2, spec.trials // 3))),
        load_if_exists=True,
    )
    for trial in study.get_trials(states=(_states().RUNNING,)):  # it was killed, and begins anew
        study.tell(trial.number, state=_states().FAIL)
    return study


def _states() -> Any:
    import optuna

    return optuna.trial.TrialState


def _tried(study: optuna.Study) -> list[Any]:
    return study.get_trials(deepcopy=False, states=(_states().COMPLETE, _states().FAIL))


def _proposed(trial: optuna.Trial, name: str, spec: Any) -> str | float | bool | int:
    if spec.choices is not None:
        chosen: str | float | bool = trial.suggest_categorical(name, spec.choices)
        return chosen
    if spec.integer:
        return trial.suggest_int(name, int(spec.low), int(spec.high), log=spec.log)
    return trial.suggest_float(name, spec.low, spec.high, log=spec.log)


def _score(place: Path) -> float:
    """Return the number that a training wrote.

    Raises:
        HoneError: it wrote none.
    """
    file = place / SCORE
    try:
        found = float(file.read_text())
    except (OSError, ValueError) as error:
        raise HoneError(f"the training wrote no number to {SCORE}: {one_line(error)}") from None
    if not math.isfinite(found):
        raise HoneError(f"the training wrote {found} to {SCORE}")
    return found


def _keep_best(spec: TrainingSearchSpec, place: Path, best: Path, score: float) -> None:
    """Let a trial's files take the place of the best ones so far if it is better than they are.

    They hold their score themselves: a kill between the files and the study leaves the best model either way.
    """
    known = _score(best) if best.is_dir() else None
    if known is not None and (score <= known if spec.goal == "maximize" else score >= known):
        return
    coming = best.with_name("best.coming")
    shutil.rmtree(coming, ignore_errors=True)
    shutil.copytree(place, coming)
    shutil.rmtree(best, ignore_errors=True)
    coming.rename(best)
