"""`hone models prune` and `hone registry prune`: one command, in both groups."""

from __future__ import annotations

import click

from hone.cli.auditing import audited


@click.command("prune")
@click.argument("name", required=False)
@click.option("--keep", type=click.IntRange(1), required=True, help="Keep so many runs of each model, the newest.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and stop.")
@click.option("-y", "--yes", is_flag=True, help="Don't ask.")
@audited("models prune", "name", unless=("dry_run",))
def prune_command(name: str | None, keep: int, dry_run: bool, yes: bool) -> dict[str, str]:
    """Remove what older runs of hone optimize stored, of NAME or of every model.

    What an alias of the registry means is never removed, nor what was imported without a run.
    """
    from hone import store
    from hone.lifecycle.registry.prune import outdated

    old = outdated(name, keep)
    if not old:
        click.echo("nothing to remove")
        return {}
    if not dry_run and not yes:
        click.confirm(f"remove {', '.join(entry.tag for entry in old)}?", abort=True)
    freed = 0
    for entry in old:
        size = entry.artifact.manifest.size_bytes if entry.artifact else 0
        if not dry_run:
            store.remove(entry)
        click.echo(f"{'would remove' if dry_run else 'removed'} {entry.tag}")
        freed += size
    click.echo(f"{len(old)} version(s), {freed / 1e6:,.1f} MB")
    return {"removed": " ".join(entry.tag for entry in old)}
