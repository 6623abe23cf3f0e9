"""`hone drift`: whether a model's traffic still looks like the rows that it was proven on."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hone.cli.groups import HoneGroup
from hone.cli.lifecycle.watches.options import Watched, watch_options
from hone.cli.printing import columns

if TYPE_CHECKING:
    from hone.lifecycle.drift.check import Question
    from hone.lifecycle.drift.findings import Drift

UNITS = {"h": 1, "d": 24, "w": 168}
SHOWN = 15

folder_option = click.option(
    "--dir",
    "folder",
    envvar="HONE_DRIFT_DIR",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder that services write sketches to. [default: $HONE_DRIFT_DIR]",
)
threshold_option = click.option(
    "--threshold", type=click.FloatRange(0.01, 0.9), default=0.1, show_default=True, help="Change that is drift."
)
budget_option = click.option(
    "--false-alarms",
    type=click.FloatRange(0, min_open=True, max=30),
    default=0.1,
    show_default=True,
    help="A month, at most, of the model's columns together.",
)
recorded_option = click.option(
    "--recorded",
    type=click.Path(path_type=Path),
    help="Folder of recorded traffic: a classifier compares all inputs together, too.",
)
window_option = click.option(
    "--window", callback=lambda *given: _hours(given[2]), help="Look at the last 6h, 2d or 1w."
)
since_option = click.option("--since", help="Look at everything since 36h, 5d or 2026-12-31T08 (UTC).")


@click.group(cls=HoneGroup)
def drift() -> None:
    """Compare traffic with the rows of the proof: check it, watch it, draw it."""


@drift.command()
@click.argument("model")
@folder_option
@window_option
@since_option
@threshold_option
@budget_option
@recorded_option
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def check(model: str, folder: Path, as_json: bool, recorded: Path | None, **options: Any) -> None:
    """Compare the traffic of MODEL with the rows of its proof.

    Without --window or --since it takes as many of the last hours as have enough rows. Exit status: 3 for drift, 4 when
    the rows don't tell.
    """
    from hone.lifecycle.drift.findings import EXIT

    found = _found(model, folder, _question(**options), recorded)
    if as_json:
        click.echo(json.dumps(found.as_json()))
    else:
        _print(found)
    sys.exit(EXIT[found.verdict])


@drift.command()
@click.argument("model")
@folder_option
@window_option
@since_option
@threshold_option
@budget_option
@recorded_option
@click.option("--html", type=click.Path(path_type=Path), required=True, help="Write the page here.")
def report(model: str, folder: Path, html: Path, recorded: Path | None, **options: Any) -> None:
    """Draw what check finds of MODEL as a page."""
    from hone.files import atomic_write
    from hone.lifecycle.drift.page import to_html

    found = _found(model, folder, _question(**options), recorded)
    atomic_write(html, to_html(found))
    click.echo(f"{found.headline()}\n{html}")


@drift.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@folder_option
@threshold_option
@budget_option
@click.option("--every", default="1h", show_default=True, callback=lambda *given: _hours(given[2]), help="1h, 1d.")
@watch_options
def watch(
    models: tuple[str, ...], folder: Path, every: int, threshold: float, false_alarms: float, watched: Watched
) -> None:
    """Look at each MODEL again and again; tell people and Prometheus what has moved.

    All looks of a month share the false alarms that are allowed.
    """
    from hone.cli.lifecycle.watches.run import keep_watching
    from hone.evidence.shifts import HOURS_A_MONTH
    from hone.lifecycle.drift.check import Question, budget_of
    from hone.lifecycle.drift.check import check as look
    from hone.lifecycle.drift.findings import EXIT
    from hone.lifecycle.drift.gauges import Gauges
    from hone.lifecycle.drift.watch import Watch

    question = Question(threshold, budget=budget_of(false_alarms, HOURS_A_MONTH // min(every, HOURS_A_MONTH)))

    def status(found: Sequence[Drift]) -> int:
        codes = [EXIT[one.verdict] for one in found] + [1] * (len(models) - len(found))
        return next((code for code in (3, 1, 4) if code in codes), 0)

    keep_watching(
        watched, Watch, Gauges(), models, folder, lambda model: look(model, folder, question), every * 3600, status
    )


def _hours(text: str | None) -> int | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,4})([hdw])", text)
    if match is None or not int(match[1]):
        raise click.BadParameter(f"'{text}' is none of 6h, 2d and 1w")
    return int(match[1]) * UNITS[match[2]]


def _question(window: int | None, since: str | None, threshold: float, false_alarms: float) -> Question:
    from hone.lifecycle.drift.check import Question, budget_of
    from hone.sketches.folder import parse_stamp

    if window is not None and since is not None:
        raise click.UsageError("--window and --since both say which hours; leave one out")
    first = None
    if since is not None:
        first = parse_stamp(since.replace("-", ""))
        if first is None:
            first = int(time.time()) // 3600 - (_hours(since) or 0) + 1
    return Question(threshold, window, first, budget_of(false_alarms))


def _found(model: str, folder: Path, question: Question, recorded: Path | None) -> Drift:
    from dataclasses import replace

    from hone import store
    from hone.lifecycle.drift.check import check as look

    found = look(model, folder, question)
    if recorded is None:
        return found
    from datetime import datetime

    from hone.lifecycle.drift.joint import joint
    from hone.traffic.keys import VARIABLE, read_key

    since = datetime.fromisoformat(found.first).timestamp()
    entry, key = store.resolve(found.model), read_key(os.environ.get(VARIABLE))
    return replace(found, joint=joint(entry, recorded, since, question.threshold, question.budget, key))


def _print(found: Drift) -> None:
    from hone.lifecycle.drift.findings import WORDS

    click.echo(f"{found.model}: {found.headline()}")
    apart = f" ({found.calibration_rows:,} calibration rows are kept apart)" if found.calibration_rows else ""
    proof = f"{found.reference_rows:,} evaluation rows of the proof{apart}"
    click.echo(f"{found.rows:,} rows from {found.first} on, beside {proof}")
    rows = [
        (WORDS[one.verdict], one.column, f"{one.effect:.2f}", f"{one.low:.2f}-{one.high:.2f}", one.describe(), one.note)
        for one in found.findings[:SHOWN]
    ]
    if rows:
        click.echo(columns([("VERDICT", "COLUMN", "CHANGE", "BOUNDS", "WHAT", "NOTE"), *rows]))
    if len(found.findings) > SHOWN:
        click.echo(f"and {len(found.findings) - SHOWN} more columns; --json has all")
    if found.joint is not None:
        joint = found.joint
        click.echo(
            f"{WORDS[joint.verdict]}: a classifier tells {joint.accuracy:.0%} of {joint.rows:,} recorded rows from the "
            f"proof's; all inputs together have moved by {joint.low:.2f} at least"
        )
    for problem in found.problems:
        click.echo(f"left out: {problem}", err=True)
