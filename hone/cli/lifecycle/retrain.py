"""`hone retrain`: new models from new data."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hone.cli.auditing import audited
from hone.cli.groups import HoneGroup
from hone.errors import HoneError

if TYPE_CHECKING:
    from hone.lifecycle.retrain.journal import Run

recipe_argument = click.argument("recipe", type=click.Path(path_type=Path))
STATUS = {"kept": 3, "undecided": 4}


@click.group(cls=HoneGroup)
def retrain() -> None:
    """Train again, optimize, prove beside the champion, promote when every gate is open."""


@retrain.command("run")
@recipe_argument
@click.option("--trigger", default="by hand", show_default=True, help="Why; kept in the history.")
@click.option("--scheduled", is_flag=True, help="No person asks: the cool-down and the number of runs count.")
@audited("retrain", "recipe")
def run_command(recipe: Path, trigger: str, scheduled: bool) -> dict[str, str]:
    """Retrain the model of RECIPE now, or go on with a run that was cut off.

    Exits with status 3 when the champion stays, with 4 when the rows don't decide, with 1 when a step failed. What is
    served changes in one step at the end, or not at all.
    """
    from hone.lifecycle.retrain.run import retrain as retrained

    run = retrained(recipe, trigger, by_hand=not scheduled, told=lambda text: click.echo(text, err=True))
    click.echo(f"{run.outcome}: {run.detail}")
    if run.outcome in STATUS:
        error = HoneError(f"{run.name}: {run.detail}")
        error.exit_code = STATUS[run.outcome]
        raise error
    return {"run": run.id, "became": run.outcome, "to": run.candidate}


@retrain.command()
@click.argument("recipes", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--every", type=click.FloatRange(0.1), default=60, show_default=True, help="Seconds between two looks.")
@click.option("--port", type=int, help="Take POST /retrain/NAME here, with the token in HONE_RETRAIN_TOKEN.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of --port.")
@click.option("--drift-dir", envvar="HONE_DRIFT_DIR", type=click.Path(path_type=Path), help="Sketches of the services.")
@click.option("--feedback-dir", envvar="HONE_FEEDBACK_DIR", type=click.Path(path_type=Path), help="Answers and labels.")
@click.option("--alert", type=click.Path(path_type=Path), help="Whom to tell of runs: docs/drift.md has the fields.")
def watch(
    recipes: tuple[Path, ...], every: float, port: int | None, host: str, drift_dir: Path | None,
    feedback_dir: Path | None, alert: Path | None,
) -> None:  # fmt: skip
    """Retrain the models of RECIPES when their schedule, new rows, drift, lost quality or somebody asks for it.

    Ctrl-C ends it.
    """
    from hone.lifecycle.retrain.degraded import QualityLooks
    from hone.lifecycle.retrain.drifted import DriftLooks
    from hone.lifecycle.retrain.journal import now
    from hone.lifecycle.retrain.triggers import next_time, spec_of
    from hone.lifecycle.retrain.watch import Watch, listen
    from hone.lifecycle.watching.alerts import Alert, read_settings, send
    from hone.recipe import load_recipe
    from hone.traffic.keys import VARIABLE, read_key

    names = []
    for file in recipes:
        loaded = load_recipe(file)
        spec = spec_of(loaded)
        if spec.drift and drift_dir is None:
            raise HoneError(f"{file}: retrain.drift needs --drift-dir (HONE_DRIFT_DIR), where services write sketches")
        if spec.quality and feedback_dir is None:
            raise HoneError(f"{file}: retrain.quality needs --feedback-dir (HONE_FEEDBACK_DIR), where labels are kept")
        names.append(loaded.recipe.name)
        coming = f", next {next_time(loaded, spec.schedule, now()):%Y-%m-%d %H:%M} UTC" if spec.schedule else ""
        click.echo(f"watching {loaded.recipe.name}{coming}", err=True)
    if port is not None:
        server = listen(names, port, os.environ.get("HONE_RETRAIN_TOKEN", ""), host)
        click.echo(f"listening on http://{host}:{server.server_port}/retrain/NAME", err=True)
    settings = read_settings(alert) if alert else None

    def tell(of: Alert) -> None:
        for problem in send(settings, of) if settings else ():
            click.echo(f"warning: {problem}", err=True)

    told = lambda text: click.echo(text, err=True)  # noqa: E731
    drifted = DriftLooks(drift_dir) if drift_dir else lambda name: ""
    key = read_key(os.environ.get(VARIABLE)) if feedback_dir else None
    degraded = QualityLooks(feedback_dir, key) if feedback_dir else lambda name: ""
    Watch(recipes, told, tell, drifted, degraded).run(every)


@retrain.command()
@click.argument("name")
@click.option("--reason", default="asked for", show_default=True, help="Kept in the history.")
@audited("retrain request", "name")
def request(name: str, reason: str) -> None:
    """Ask whoever watches for a run of the model NAME."""
    from hone.lifecycle.retrain.journal import Journal
    from hone.names import is_name

    if not is_name(name):
        raise HoneError(f"'{name}' is no model's name")
    Journal(name).ask(reason)
    click.echo(f"{name}: the next look of hone retrain watch begins a run")


@retrain.command()
@recipe_argument
@click.option("--image", required=True, help="With Hone, the recipe's folder, and what its training needs.")
@click.option("--path", help="Of the recipe in the image. [default: as given]")
@click.option("--claim", default="hone-store", show_default=True, help="Volume claim of the model store.")
@click.option("--namespace", default="hone", show_default=True)
@click.option("--cpu", default="2", show_default=True, help="That a run gets.")
@click.option("--memory", default="4Gi", show_default=True, help="That a run gets.")
def cronjob(recipe: Path, image: str, path: str | None, claim: str, namespace: str, cpu: str, memory: str) -> None:
    """Print a Kubernetes CronJob that retrains the model of RECIPE by its schedule."""
    from hone.lifecycle.retrain import schedules
    from hone.recipe import load_recipe

    click.echo(
        schedules.cronjob(load_recipe(recipe), path or str(recipe), image, claim, namespace, cpu, memory), nl=False
    )


@retrain.command()
@recipe_argument
@click.option("--path", help="Of the recipe on Airflow's workers. [default: its absolute path here]")
def dag(recipe: Path, path: str | None) -> None:
    """Print an Airflow DAG that retrains the model of RECIPE by its schedule."""
    from hone.lifecycle.retrain import schedules
    from hone.recipe import load_recipe

    click.echo(schedules.dag(load_recipe(recipe), path or str(recipe.resolve())), nl=False)


@retrain.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def status(name: str, as_json: bool) -> None:
    """Show the runs of the model NAME, the newest first, and how far one is that goes on."""
    from hone.lifecycle.retrain.journal import Journal

    journal = Journal(name)
    last, runs = journal.last(), journal.ended()
    if last is not None and not last.ended:
        runs.append(last)
    if not runs and not as_json:
        click.echo(f"{name} was never retrained; hone retrain run RECIPE does it")
    for run in reversed(runs):
        click.echo(run.model_dump_json() if as_json else _line(run, busy=journal.is_busy()))


def _line(run: Run, *, busy: bool) -> str:
    if run.ended:
        return f"{run.began[:19]}  {run.outcome:<9}  {run.trigger}: {run.detail}"
    state = "goes on" if busy else "was cut off; hone retrain run goes on with it"
    return f"{run.began[:19]}  {state}  {run.trigger}: {' > '.join(run.steps) or 'begins'}"
