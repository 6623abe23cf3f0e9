"""`hone investigate`: what changed when a service began to do worse."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from hone.cli.durations import DURATION


@click.command()
@click.argument("model")
@click.option("--since", type=DURATION, required=True, help="How long ago it began: 90m, 6h, 2d. Whole hours count.")
@click.option(
    "--drift-dir",
    "sketches",
    envvar="HONE_DRIFT_DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of sketched traffic. [default: $HONE_DRIFT_DIR]",
)
@click.option(
    "--feedback-dir",
    "answers",
    envvar="HONE_FEEDBACK_DIR",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of noted answers. [default: $HONE_FEEDBACK_DIR]",
)
@click.option(
    "--key", "key_file", envvar="HONE_RECORD_KEY_FILE", type=click.Path(path_type=Path), help="Of encrypted answers."
)
@click.option("--prometheus", default="", metavar="URL", help="Of the API of a Prometheus that watches the service.")
@click.option("--auth-file", type=click.Path(path_type=Path), help="NAME:PASSWORD or a token. [$HONE_PROMETHEUS_AUTH]")
@click.option("--ca", type=click.Path(path_type=Path), help="Certificates that Prometheus' own is checked with.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def investigate(
    model: str, since: float, sketches: Path | None, answers: Path | None, key_file: Path | None, prometheus: str,
    auth_file: Path | None, ca: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Say what changed of MODEL since it began to do worse, beside as long before.

    Versions and who changed them, load, inputs, outputs, callers, and by Prometheus the stages of a request, failures
    and single pods: the largest change first, each with what to do. Shares count by their lower bounds.
    """
    from hone.k8s.planning.prometheus import Access
    from hone.lifecycle.investigate.look import Question, investigate
    from hone.traffic.keys import read_key

    now = time.time()
    access = Access.of(auth_file, ca) if prometheus else Access()
    question = Question(now - since, sketches, answers, read_key(key_file), prometheus, access)
    found = investigate(model, question, now)
    if as_json:
        click.echo(json.dumps(found.as_json()))
        return
    click.echo(f"{found.model}: {found.after[0]} to now, beside {found.before[0]} to {found.before[1]}")
    for number, clue in enumerate(found.clues, 1):
        click.echo(f"{number}. {clue.kind} {clue.what}: {clue.words}\n   {found.action(clue)}")
    if not found.clues:
        click.echo("nothing that was looked at has changed")
    for words, lines in (("as before", found.same), ("not known", found.unknown)):
        for line in lines:
            click.echo(f"{words}  {line}")
