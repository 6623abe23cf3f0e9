"""One retraining: train, optimize, look at the gates. Each step is written down, so a run that was cut off goes on.

Until the last step nothing that is served has changed, and the last is one change of the registry.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hone import store
from hone.audit import Details
from hone.errors import HoneError, one_line
from hone.recipe import LoadedRecipe, load_recipe
from hone.store.registry import pointer_to, registered

from ..registry.changes import examine, promote
from ..registry.history import entered
from .journal import Journal, Outcome, Run, Step, now
from .parameters import told
from .training import TRIALS, ran, trained
from .triggers import count_rows, rested, spec_of

OPTIMIZE = "import sys; from hone.cli.main import main; sys.exit(main())"
MET, MISSED, UNDECIDED = 0, 3, 4
"""Exit statuses of `hone optimize`."""

Told = Callable[[str], None]


@dataclass
class _Doing:
    """A run that goes on."""

    loaded: LoadedRecipe
    journal: Journal
    run: Run
    deadline: float
    told: Told

    @property
    def folder(self) -> Path:
        return self.journal.work(self.run)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Write that a step begins, and that it ended; yields a list for what came of it."""
        self.told(name)
        found: list[str] = []
        begun = Step(began=now().isoformat())
        self.run = self.journal.write(self.run.with_step(name, begun))
        yield found
        ended = begun.model_copy(update={"ended": now().isoformat(), "detail": "; ".join(found)})
        self.run = self.journal.write(self.run.with_step(name, ended))


def retrain(recipe: Path, trigger: str, *, by_hand: bool, told: Told = lambda _: None) -> Run:
    """Retrain a model, or go on with a run that was cut off; return what became of it.

    A run that fails changes nothing that is served. Its outcome, and each change of the registry, is in the history.

    Args:
        recipe: with the field `retrain`.
        trigger: why.
        by_hand: a person asked: neither the cool-down nor the number of runs refuses it.
        told: hears what is being done.

    Raises:
        RecipeError: the recipe is wrong.
        HoneError: the model is being retrained already, or it is too early; a step failed.
    """
    loaded = load_recipe(recipe)
    spec, journal = spec_of(loaded), Journal(loaded.recipe.name)
    with journal.alone():
        run = _begun(loaded, journal, trigger, by_hand=by_hand, told=told)
        journal.heard()
        with entered("retrain", loaded.recipe.name) as details:
            details.update({"run": run.id, "trigger": run.trigger})
            doing = _Doing(loaded, journal, run, time.monotonic() + spec.minutes * 60, told)
            ended = _ended(doing, details)
    return ended


def _ended(doing: _Doing, details: Details) -> Run:
    try:
        outcome, why = _steps(doing)
    except BaseException as error:
        # A person's Ctrl-C, or a kill, cuts a run off: the next one goes on with it.
        if isinstance(error, Exception):
            doing.journal.end(doing.run, "failed", one_line(error))
        raise
    details.update({"became": outcome, "to": doing.run.candidate, "reason": why})
    return doing.journal.end(doing.run, outcome, why)


def _begun(loaded: LoadedRecipe, journal: Journal, trigger: str, *, by_hand: bool, told: Told) -> Run:
    """Return the run that was cut off, or a new one."""
    last, spec = journal.last(), spec_of(loaded)
    if last is not None and not last.ended:
        if last.recipe == str(loaded.path):
            told(f"going on with the run of {last.began}")
            return last
        journal.end(last, "failed", f"it was cut off, and {loaded.path} is another recipe")
    if not by_hand and not rested(spec, journal.ended()):
        raise HoneError(
            f"{loaded.recipe.name}: the last run is less than {spec.cooldown_h:g} h ago, or there were {spec.runs} in "
            "30 days; a person may begin one: hone retrain run RECIPE"
        )
    began = now()
    run = Run(
        id=f"{began:%Y%m%d-%H%M%S-%f}",
        name=loaded.recipe.name,
        recipe=str(loaded.path),
        trigger=trigger,
        by_hand=by_hand,
        began=began.isoformat(),
        rows=count_rows(loaded),
    )
    return journal.write(run)


def _steps(doing: _Doing) -> tuple[Outcome, str]:
    file = _train(doing)
    if not doing.run.candidate:
        with doing.step("optimize") as found:
            outcome, tag, why = _optimize(doing, file)
            doing.run = doing.run.model_copy(update={"candidate": tag})
            found.append(why)
        if not tag:
            return outcome, why
    if not spec_of(doing.loaded).promote:
        return (
            "candidate",
            f"{doing.run.candidate} met its budget; hone registry promote {doing.run.name} looks further",
        )
    with doing.step("promote") as found:
        outcome, why = _promote(doing)
        found.append(why)
    return outcome, why


def _train(doing: _Doing) -> Path | None:
    """Return the new model; None where the source's loader trains."""
    out = doing.folder / "trained"
    if not doing.run.has("train"):
        with doing.step("train") as found:
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            made = trained(doing.loaded, out, doing.folder / "train.log", doing.deadline)
            found.append(_size(made) if made else "by the source's loader")
            if made and spec_of(doing.loaded).search is not None:
                found.append(told(doing.folder / TRIALS))
    return doing.loaded.trained_in(out)


def _size(made: Path) -> str:
    files = [made] if made.is_file() else [file for file in made.rglob("*") if file.is_file()]
    name = made.name if made.is_file() else f"{len(files)} files"
    return f"{name}, {sum(file.stat().st_size for file in files)} bytes"


def _optimize(doing: _Doing, file: Path | None) -> tuple[Outcome, str, str]:
    """Return the tag of the winner and why it won; without one what that means, an empty tag, and why."""
    report = doing.folder / "report"
    command = [sys.executable, "-c", OPTIMIZE, "optimize", str(doing.loaded.path), "--out", str(report)]
    command += ["--source", str(file)] if file else []
    log = doing.folder / "optimize.log"
    status = ran(command, "hone optimize", log, doing.deadline, doing.loaded.root, {}, (MET, MISSED, UNDECIDED))
    if status != MET:
        why = log.read_text(errors="replace").strip().splitlines()[-1].removeprefix("error: ")
        return "kept" if status == MISSED else "undecided", "", why
    content = json.loads((report / "report.json").read_text())
    winner = next(variant for variant in content["variants"] if variant["name"] == content["winner"])
    if not winner["tag"]:
        return "kept", "", f"{winner['name']} won, and can't be served"
    return "", winner["tag"], f"{winner['tag']} won"


def _promote(doing: _Doing) -> tuple[Outcome, str]:
    """Promote the candidate when every gate is open; else say which isn't."""
    tag, name = doing.run.candidate, doing.run.name
    champion = registered(name).aliases.get("champion")
    if champion == pointer_to(store.resolve(tag)):  # before the run was cut off
        return "promoted", f"{tag} is {name}@champion"
    recipe = None if doing.loaded.recipe.rows_may_be_copied else doing.loaded.path
    examined = examine(tag, recipe=recipe)
    if examined.closed:
        return ("undecided" if examined.undecided else "kept"), f"{tag} stays a candidate: {examined.why_closed}"
    promote(examined, f"retrained: {doing.run.trigger}")
    return "promoted", f"{tag} is {name}@champion, was {examined.before or 'none'}"
