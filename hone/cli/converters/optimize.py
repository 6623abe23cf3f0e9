"""`hone optimize`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hone.cli.auditing import audited
from hone.cli.first_recipe import asked_for
from hone.errors import BudgetError, HoneError, RecipeError, UndecidedError

if TYPE_CHECKING:
    from hone.converters.report.records import Report

SEARCH_MINUTES = 10.0


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), metavar="RECIPE|MODEL")
@asked_for
@click.option(
    "--save-recipe",
    type=click.Path(path_type=Path, dir_okay=False),
    help="With MODEL: where its recipe goes. [default: beside the report]",
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the report. [default: out/NAME]")
@click.option(
    "--only",
    multiple=True,
    metavar="VARIANT",
    help="Make only this variant; may be repeated. Reports to out/NAME/only.",
)
@click.option("--force", is_flag=True, help="Run every pass again, cached or not.")
@click.option(
    "--dry-run",
    "--plan",
    "dry_run",
    is_flag=True,
    help="Print the plan and stop; for 'variants: auto' also why each preset is in it or isn't.",
)
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Passes to run at the same time.")
@click.option("--no-store", is_flag=True, help="Report only; put nothing into the model store.")
@click.option(
    "--search", is_flag=True, help="Try other passes and options, too, and prove the best beside the recipe's."
)
@click.option(
    "--minutes",
    type=click.FloatRange(0.1),
    help="Time limit of the proof, passes not counted; what it leaves out is undecided. With --search: of all, by "
    "default 10.",
)
@click.option(
    "--source",
    type=click.Path(path_type=Path, exists=True),
    help="A newly trained model in the place of the recipe's source.file; of a model in Python a folder with new ones "
    "of its files.",
)
@click.option("--full", is_flag=True, help="Measure in full what is beaten or over the budget, too.")
@click.option(
    "--mlflow", "uri", envvar="HONE_MLFLOW", metavar="URI", help="Bring this MLflow up to what the run stored, too."
)
@audited("optimize", "recipe", unless=("dry_run", "no_store"))
def optimize(
    recipe: Path,
    out: Path | None,
    only: tuple[str, ...],
    force: bool,
    dry_run: bool,
    jobs: int,
    no_store: bool,
    search: bool,
    minutes: float | None,
    source: Path | None,
    full: bool,
    uri: str | None,
    save_recipe: Path | None,
    **asked: Any,
) -> None:
    """Make, prove and rank the variants of RECIPE; store the best.

    A MODEL file needs no recipe: --data has typical rows, and what 'hone init' would write is written and run.
    Without --labels variants are compared with the model's own answers.

    Variants race: what is clearly over the budget or clearly beaten is measured no further, and the report says so.
    With --search chains of passes are chosen by trying them; a search that is run again goes on where it ended.
    Exits with status 3 when no variant meets the budget, with 4 when one may, but the evaluation rows or --minutes are
    too few to prove it: the safest is stored, and served by its own tag only.
    """
    from hone.cli.terminal import print_plan, run_optimize, run_search
    from hone.converters.run.optimize import Request, report_folder

    if search and (only or dry_run):
        raise click.UsageError("--search chooses variants itself; leave --only and --dry-run out")

    recipe = _recipe_of(recipe, out, save_recipe, asked)
    if dry_run:
        print_plan(recipe, only)
        return
    request = Request(recipe, only, force, jobs, not no_store, full, None if search else minutes, source)
    report = run_search(request, out, minutes or SEARCH_MINUTES) if search else run_optimize(request, out)
    tags = {variant.name: variant.tag for variant in report.variants if variant.tag}
    if report.winner in tags:
        from hone.lifecycle.registry.changes import propose

        propose(recipe, list(tags.values()), tags[report.winner])
    if uri and tags:
        _push(report.name, uri, report_folder(request, out))
    _check_winner(recipe, report)


def _check_winner(recipe: Path, report: Report) -> None:
    """Raise where no variant is proven to meet the budget, by what that is for."""
    if report.safest is not None:
        raise UndecidedError(f"{recipe}: {report.undecided}")
    if report.winner is None and report.unproven:
        raise UndecidedError(f"{recipe}: {report.cut_short}")
    if report.winner is None:
        raise BudgetError(f"{recipe}: no variant meets the budget; the table says why, for each")


def _push(name: str, uri: str, folder: Path) -> None:
    """Bring MLflow up to a run; what the run stored stays when MLflow can't be reached."""
    from hone.lifecycle.registry.mlflow_mirror import push
    from hone.store.mlflow_client import Place

    try:
        push(name, Place.of(uri), folder)
    except HoneError as error:
        raise HoneError(f"{error}; the run is stored here: hone registry sync {name} --mlflow URI") from error


def _recipe_of(given: Path, out: Path | None, save: Path | None, asked: dict[str, Any]) -> Path:
    """Return the recipe that was given, or the one of a model that came with rows."""
    if save is not None or any(value is not None for value in asked.values()):
        return _first_recipe(given, out, save, asked)
    if problem := _is_a_model(given):
        raise RecipeError(problem)
    return given


def _first_recipe(model: Path, out: Path | None, save: Path | None, asked: dict[str, Any]) -> Path:
    """Write the recipe of a model that came without one, and print it."""
    from hone.cli.first_recipe import given
    from hone.converters.recipes.init import default_name, write_recipe

    if model.suffix in (".yaml", ".yml"):
        raise click.UsageError("--data, --labels, --loss, --p95-ms, --size-mb and --save-recipe go with a MODEL file")
    if asked["data"] is None:
        raise RecipeError(f"{model}: --data is required: a file of typical rows, .npz, .csv or .parquet")
    target = save or (out or Path("out") / default_name(model)) / "recipe.yaml"
    written = write_recipe(model, target, overwrite=save is None, given=given(None, **asked))
    click.echo(written.recipe.read_text())
    for note in (*written.notes, f"this recipe is {written.recipe}; hone optimize {written.recipe} runs it again"):
        click.echo(f"note: {note}", err=True)
    return written.recipe


def _is_a_model(path: Path) -> str:
    """Say what to do with a model's file that is given for a recipe; empty for anything else."""
    from hone.converters.sources import for_file

    if path.suffix in (".yaml", ".yml") or not path.exists() or for_file(path) is None:
        return ""
    return f"{path}: is a model; give typical rows with --data FILE, or write a recipe with hone init {path}"
