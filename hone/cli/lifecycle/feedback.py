"""`hone feedback`: labels and figures that come later, and what they say of a model's quality."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hone.cli.durations import DURATION
from hone.cli.groups import HoneGroup
from hone.cli.lifecycle.watches.options import Watched, watch_options

if TYPE_CHECKING:
    from hone.lifecycle.feedback.check import Question
    from hone.lifecycle.feedback.findings import Quality

folder_option = click.option(
    "--dir",
    "folder",
    envvar="HONE_FEEDBACK_DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder that services keep answers and feedback in. [default: $HONE_FEEDBACK_DIR]",
)
key_option = click.option(
    "--key",
    "key_file",
    envvar="HONE_RECORD_KEY_FILE",
    type=click.Path(path_type=Path),
    help="Of encrypted files. [default: $HONE_RECORD_KEY_FILE]",
)
warn_option = click.option(
    "--warn", type=click.FloatRange(0, 1, min_open=True), default=0.05, show_default=True, help="Loss to warn of."
)
act_option = click.option(
    "--act", type=click.FloatRange(0, 1, min_open=True), default=0.10, show_default=True, help="Loss to act on."
)
within_option = click.option(
    "--within", type=DURATION, default="35d", show_default=True, help="After its answer, in which a label counts."
)
since_option = click.option("--since", type=DURATION, help="Look at answers of the last 36h or 5d only.")
alarms_option = click.option(
    "--false-alarms",
    type=click.FloatRange(0, min_open=True, max=30),
    default=0.1,
    show_default=True,
    help="A month, at most, of a model's metrics together.",
)
recipe_option = click.option(
    "--recipe", type=click.Path(path_type=Path), help="With the metrics. [default: as the registry knows it]"
)


@click.group(cls=HoneGroup)
def feedback() -> None:
    """Labels that come later: import them, check what they say of quality, watch it, draw it."""


@feedback.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Whose answers it is about.")
@folder_option
@key_option
def import_command(file: Path, model: str, folder: Path, key_file: Path | None) -> None:
    """Take labels and figures from FILE: .csv, .parquet or .jsonl, a row a request.

    Columns: request_id, label, time, figures.NAME. The last row of a request counts; a file may be imported again.
    """
    from hone.lifecycle.feedback.importing import import_file
    from hone.traffic.keys import read_key

    found = import_file(file, folder, model, read_key(key_file))
    click.echo(f"{found.entries:,} entries, {found.known:,} of them about an answer that is kept")


@feedback.command()
@click.argument("model")
@folder_option
@key_option
@warn_option
@act_option
@since_option
@within_option
@alarms_option
@recipe_option
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def check(model: str, folder: Path, key_file: Path | None, recipe: Path | None, as_json: bool, **options: Any) -> None:
    """Compare what MODEL's answers turned out to be worth with its proof.

    Losses are shares of the proof's figure, and it is their lower bound that counts. Exit status: 3 to act, 5 to warn,
    4 when the labels don't tell.
    """
    from hone.lifecycle.feedback.findings import EXIT

    found = _found(model, folder, key_file, recipe, _question(**options))
    if as_json:
        click.echo(json.dumps(found.as_json()))
    else:
        _print(found)
    sys.exit(EXIT[found.state])


@feedback.command()
@click.argument("model")
@folder_option
@key_option
@warn_option
@act_option
@since_option
@within_option
@alarms_option
@recipe_option
@click.option("--html", type=click.Path(path_type=Path), required=True, help="Write the page here.")
def report(model: str, folder: Path, key_file: Path | None, recipe: Path | None, html: Path, **options: Any) -> None:
    """Draw what check finds of MODEL as a page."""
    from hone.files import atomic_write
    from hone.lifecycle.feedback.page import to_html

    found = _found(model, folder, key_file, recipe, _question(**options))
    atomic_write(html, to_html(found))
    click.echo(f"{found.headline()}\n{html}")


@feedback.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@folder_option
@key_option
@warn_option
@act_option
@within_option
@alarms_option
@click.option("--every", type=DURATION, default="1h", show_default=True, help="1h, 1d.")
@watch_options
def watch(
    models: tuple[str, ...], folder: Path, key_file: Path | None, every: float, watched: Watched, **options: Any
) -> None:
    """Look at the quality of each MODEL again and again; tell people and Prometheus when it is lost."""
    from hone.cli.lifecycle.watches.run import keep_watching
    from hone.lifecycle.feedback.findings import EXIT, ORDER
    from hone.lifecycle.feedback.gauges import Gauges
    from hone.lifecycle.feedback.watch import Watch

    question = _question(since=None, **options, every_s=every)

    def look(model: str) -> Quality:
        return _found(model, folder, key_file, None, question)

    def status(found: Sequence[Quality]) -> int:
        return 1 if len(found) < len(models) else EXIT[min((one.state for one in found), key=ORDER.index)]

    keep_watching(watched, Watch, Gauges(), models, folder, look, every, status)


def _question(
    warn: float, act: float, since: float | None, within: float, false_alarms: float, every_s: float = 3600.0
) -> Question:
    from hone.evidence.shifts import HOURS_A_MONTH, Budget
    from hone.lifecycle.feedback.check import Question, require_thresholds

    require_thresholds(warn, act)
    looks = max(1, int(HOURS_A_MONTH * 3600 / max(every_s, 1.0)))
    return Question(warn, act, time.time() - since if since else 0.0, within, Budget(false_alarms, looks))


def _found(model: str, folder: Path, key_file: Path | None, recipe: Path | None, question: Question) -> Quality:
    from hone.lifecycle.feedback.check import check as look
    from hone.recipe import load_recipe
    from hone.traffic.keys import read_key

    loaded = load_recipe(recipe) if recipe else None
    return look(model, folder, question, loaded=loaded, key=read_key(key_file))


def _print(found: Quality) -> None:
    click.echo(f"{found.model}: {found.headline()}")
    click.echo(f"{found.labeled:,} of {found.answers:,} answers have labels")
    for one in found.measured:
        click.echo(f"{one.state} ({one.look} look, {one.live.rows:,} requests): {one.describe()}")
    for estimate in found.estimates:
        click.echo(f"{estimate.state}: {estimate.describe()}")
    for problem in found.problems:
        click.echo(f"note: {problem}", err=True)
