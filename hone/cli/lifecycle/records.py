"""`hone records`: what is kept of people's requests."""

from __future__ import annotations

from pathlib import Path

import click

from hone.cli.auditing import audited
from hone.cli.groups import HoneGroup
from hone.errors import HoneError


@click.group(cls=HoneGroup)
def records() -> None:
    """Delete what is kept of a request, or of a person."""


@records.command()
@click.option("--request", "requests", multiple=True, help="Id of a request (x-request-id); may be repeated.")
@click.option(
    "--subject", default="", help="Whom rows are about, as HONE_SUBJECT_HEADER or a sticky split's header says."
)
@click.option(
    "--column", "columns", multiple=True, help="Of recorded rows that hold subjects, plain or hashed: input.user."
)
@click.option("--reason", required=True, help="Kept in the log of deletions.")
@click.option(
    "--record-dir", envvar="HONE_RECORD_DIR", type=click.Path(path_type=Path), help="[default: $HONE_RECORD_DIR]"
)
@click.option(
    "--feedback-dir", envvar="HONE_FEEDBACK_DIR", type=click.Path(path_type=Path), help="[default: $HONE_FEEDBACK_DIR]"
)
@click.option(
    "--key",
    "key_file",
    envvar="HONE_RECORD_KEY_FILE",
    type=click.Path(path_type=Path),
    help="Of encrypted files. [default: $HONE_RECORD_KEY_FILE]",
)
@audited("records delete", "requests")
def delete(
    requests: tuple[str, ...],
    subject: str,
    columns: tuple[str, ...],
    reason: str,
    record_dir: Path | None,
    feedback_dir: Path | None,
    key_file: Path | None,
) -> dict[str, str]:
    """Delete the rows of requests, or of a person, from recorded traffic, answers and feedback.

    The chain of recorded files can still be checked: deletions.jsonl beside them says what was removed, by whom and
    why. What a service has not written yet stays, records of the last minute and answers of the last seconds: delete
    again then.
    """
    from hone.audit import operator
    from hone.lifecycle.records.delete import Places, Wanted
    from hone.lifecycle.records.delete import delete as deleted
    from hone.traffic.keys import read_key

    if not requests and not subject:
        raise click.UsageError("say what to delete: --request ID or --subject ID")
    if record_dir is None and feedback_dir is None:
        raise click.UsageError("say where: --record-dir or --feedback-dir (HONE_RECORD_DIR, HONE_FEEDBACK_DIR)")
    wanted = Wanted(frozenset(requests), subject, columns)
    found = deleted(wanted, Places(record_dir, feedback_dir, read_key(key_file)), operator(), reason)
    if not (found.rows or found.answers or found.entries):
        raise HoneError("nothing was deleted: no row is of such a request or person")
    click.echo(f"deleted: {found.rows} recorded rows, {found.answers} answers, {found.entries} entries of feedback")
    details = {"rows": found.rows, "answers": found.answers, "feedback": found.entries}
    named = {"person": found.subject} if found.subject else {}
    return {"reason": reason, **named, **{name: str(count) for name, count in details.items()}}
