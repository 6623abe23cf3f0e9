"""`hone registry`: which stored versions are candidate, champion and previous, and how that changes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hone.cli.auditing import audited
from hone.cli.groups import HoneGroup
from hone.cli.printing import columns
from hone.cli.pruning import prune_command

if TYPE_CHECKING:
    from hone.lifecycle.registry.changes import Promotion
    from hone.lifecycle.registry.history import Change
    from hone.store import Entry

GATES = ("proof", "golden", "callers", "champion", "latency", "size", "drift")
reason_option = click.option("--reason", default="", help="Why; kept in the history.")
drift_option = click.option(
    "--drift-dir",
    "sketches",
    envvar="HONE_DRIFT_DIR",
    type=click.Path(path_type=Path),
    help="Folder of sketched traffic, which the proof's rows must look like. [default: $HONE_DRIFT_DIR]",
)


@dataclass(frozen=True)
class Summary:
    """A stored version, as the registry knows it; `manifest` is the hash of its manifest."""

    tag: str
    aliases: list[str]
    verdict: str
    run: str
    manifest: str
    notes: dict[str, str]


@click.group(cls=HoneGroup)
def registry() -> None:
    """Say which stored version is served: promote, go back, note, look back."""


registry.add_command(prune_command)


@registry.command("list")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_command(name: str | None, as_json: bool) -> None:
    """List stored versions with their aliases, the newest run first."""
    from hone import store

    found = store.entries(name)
    if as_json:
        for entry in found:
            click.echo(json.dumps(asdict(_summary(entry))))
        return
    if not found:
        click.echo(f"no models in {store.models_dir()}; hone optimize puts them there")
        return
    rows = [
        (one.tag, ", ".join(one.aliases) or "-", one.verdict, _told(one.notes) or "-") for one in map(_summary, found)
    ]
    click.echo(columns([("TAG", "ALIASES", "BUDGET", "NOTES"), *rows]))


@registry.command("show")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def show_command(model: str, as_json: bool) -> None:
    """Show what is registered of MODEL: NAME, NAME@ALIAS or NAME:VERSION."""
    from hone import store
    from hone.store.registry import registered

    if ":" in model or "@" in model:
        summary = _summary(store.resolve(model))
        if as_json:
            click.echo(json.dumps(asdict(summary)))
            return
        click.echo(f"{summary.tag}\n  aliases   {', '.join(summary.aliases) or 'none'}\n  budget    {summary.verdict}")
        click.echo(f"  run       {summary.run or 'none'}\n  manifest  {summary.manifest}")
        for key, text in summary.notes.items():
            click.echo(f"  note      {key}: {text}")
        return
    if not store.entries(model):
        store.resolve(model)  # says what there is
    known = registered(model)
    if as_json:
        click.echo(known.model_dump_json(exclude={"terms"}))
        return
    for alias, pointer in known.aliases.items():
        click.echo(f"{model}@{alias:<9} {model}:{pointer.version}  {pointer.manifest[:16]}")
    if not known.aliases:
        click.echo(f"no alias of '{model}' is set; hone registry promote {model} makes its best the champion")


@registry.command()
@click.argument("model")
@click.argument("notes", nargs=-1, required=True, metavar="KEY=TEXT...")
@audited("registry annotate", "model")
def annotate(model: str, notes: tuple[str, ...]) -> dict[str, str]:
    """Note texts of a version of MODEL; KEY= takes one away."""
    from hone.lifecycle.registry import changes

    pairs = [note.partition("=") for note in notes]
    for key, equals, _ in pairs:
        if not key or not equals:
            raise click.UsageError(f"'{key}' is not KEY=TEXT")
    return changes.annotate(model, {key: text for key, _, text in pairs})


@registry.command()
@click.argument("model")
@reason_option
@click.option("--approve", is_flag=True, help="Approve it, where the recipe asks for a person; needs --reason.")
@click.option("--waive", multiple=True, type=click.Choice(GATES), help="Let this gate pass; needs --reason.")
@click.option(
    "--recipe", type=click.Path(path_type=Path), help="Compare on all evaluation rows of this recipe. [default: kept]"
)
@drift_option
@click.option("--dry-run", is_flag=True, help="Say what the gates find, and stop.")
@audited("registry promote", "model", unless=("dry_run",))
def promote(
    model: str,
    reason: str,
    approve: bool,
    waive: tuple[str, ...],
    recipe: Path | None,
    sketches: Path | None,
    dry_run: bool,
) -> dict[str, str]:
    """Make MODEL the champion; a bare NAME is its candidate.

    Gates: its proof, its golden rows on this processor, the champion's inputs and outputs, no more loss against the
    champion than the recipe allows on the same rows, time and size beside the champion's, today's traffic where it is
    sketched, and a person's approval where the recipe asks for one. Exit status: 3 when one is missed, 4 when what was
    measured doesn't tell.
    """
    from hone.lifecycle.registry import changes

    if (approve or waive) and not reason.strip():
        raise click.UsageError("--approve and --waive need a --reason")
    found = changes.examine(model, waived=waive, approval=reason if approve else "", recipe=recipe, sketches=sketches)
    _print(found)
    if dry_run:
        found.refuse()
        return {}
    details = changes.promote(found, reason)
    click.echo(f"{_alias(found.tag, 'champion')} is {found.tag}" + (f", was {found.before}" if found.before else ""))
    return details


@registry.command()
@click.argument("name")
@reason_option
@audited("registry rollback", "name")
def rollback(name: str, reason: str) -> dict[str, str]:
    """Make what was champion before the champion of NAME again; nothing is measured, or asked of a network."""
    from hone.lifecycle.registry import changes

    details = changes.rollback(name, reason)
    click.echo(f"{name}@champion is {details['to']}, was {details['from']}")
    return details


@registry.command()
@click.argument("name")
@click.option(
    "--mlflow", "uri", envvar="MLFLOW_TRACKING_URI", default="", help="Server or database. [default: SQLite, beside it]"
)
@click.option("--artifacts", default="", help="Folder or address of a new database's artifacts, such as s3://BUCKET.")
@click.option("--report", type=click.Path(path_type=Path, exists=True), help="Push this folder of hone optimize, too.")
@click.option("--pull", is_flag=True, help="Take over what the aliases mean there, with the versions they need.")
@click.option("--trust-code", is_flag=True, help="With --pull: let in versions that bring code.")
@audited("registry sync", "name")
def sync(name: str, uri: str, artifacts: str, report: Path | None, pull: bool, trust_code: bool) -> dict[str, str]:
    """Bring MLflow up to what is registered here of NAME: runs with figures, versions with all files, aliases, notes.

    With --pull the other way: aliases are taken over, and versions downloaded, checked as an import is, and stored.
    """
    from hone.lifecycle.registry import mlflow_mirror
    from hone.store.mlflow_client import Place
    from hone.store.trust import Policy

    place = Place.of(uri, artifacts)
    if pull:
        lines = mlflow_mirror.pull(name, place, Policy.from_environment(code=trust_code))
    else:
        lines = mlflow_mirror.push(name, place, report)
    for line in lines:
        click.echo(line)
    click.echo(f"{len(lines)} change(s)")
    return {"changes": "; ".join(lines)}


@registry.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the evidence.")
def history(name: str | None, as_json: bool) -> None:
    """Show who changed what, when, why, from and to which version; the chain of records is checked first."""
    from hone.lifecycle.registry.history import changes

    show_changes(changes(name), as_json)


def show_changes(found: list[Change], as_json: bool) -> None:
    """Print records of the history, a line each."""
    for change in found:
        if as_json:
            click.echo(json.dumps(asdict(change)))
            continue
        to, before = change.details.get("to", ""), change.details.get("from", "")
        moved = f"{before or 'nothing'} -> {to}" if to else change.model
        reason = f": {change.details['reason']}" if change.details.get("reason") else ""
        failed = "" if change.outcome == "done" else f" ({change.outcome})"
        click.echo(f"{change.time}  {change.actor}  {change.action}{failed}  {moved}{reason}")


def _print(found: Promotion) -> None:
    marks = {"met": "pass", "missed": "FAIL", "undecided": "open"}
    for gate in found.gates:
        click.echo(f"{'waived' if gate.waived else marks[gate.verdict]:<7} {gate.name:<9} {gate.detail}")


def _alias(tag: str, alias: str) -> str:
    return f"{tag.partition(':')[0]}@{alias}"


def _told(notes: dict[str, str]) -> str:
    return "; ".join(f"{key}: {text}" for key, text in notes.items())


def _summary(entry: Entry) -> Summary:
    from hone.artifact import MANIFEST
    from hone.files import hash_file
    from hone.store.registry import registered

    known = registered(entry.name)
    selection = entry.artifact.manifest.selection if entry.artifact else None
    return Summary(
        entry.tag,
        known.aliases_of(entry.version),
        selection.outcome if selection else "-",
        entry.run,
        hash_file(entry.path / MANIFEST) if entry.artifact else f"unreadable: {entry.error}",
        known.notes.get(entry.version, {}),
    )
