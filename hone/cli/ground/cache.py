"""`hone cache`: what Hone keeps because it can make it again only with time."""

from __future__ import annotations

import time
from collections import Counter

import click

from hone.cli.auditing import audited
from hone.cli.groups import HoneGroup
from hone.cli.printing import columns
from hone.errors import HoneError, one_line

DAY_S = 86_400


@click.group(cls=HoneGroup)
def cache() -> None:
    """Look after the cache of passes, engines and searches: $HONE_CACHE."""


@cache.command("list")
def list_command() -> None:
    """Say what is in the cache, and how large it is."""
    from hone.cache import cache_dir, cached

    found = cached()
    counts = Counter(one.kind for one in found)
    rows = [
        (kind, str(count), f"{sum(one.size_bytes for one in found if one.kind == kind) / 1e6:,.1f} MB")
        for kind, count in sorted(counts.items())
    ]
    click.echo(columns([(str(cache_dir()), "ENTRIES", "SIZE"), *rows]))


@cache.command()
@click.option(
    "--days", type=click.FloatRange(0), default=30.0, show_default=True, help="Keep what was used within so many days."
)
@click.option("--keep-gb", type=click.FloatRange(0), help="Of what is left keep so much, what was used last.")
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and stop.")
@audited("cache prune", unless=("dry_run",))
def prune(days: float, keep_gb: float | None, dry_run: bool) -> None:
    """Remove what wasn't used for a while: it is made again when it is needed. No optimization should run meanwhile."""
    from hone.cache import cached

    oldest = time.time() - days * DAY_S
    kept, removed, freed = 0, 0, 0
    for one in cached():
        if one.used >= oldest and (keep_gb is None or kept + one.size_bytes <= keep_gb * 1e9):
            kept += one.size_bytes
            continue
        try:
            if not dry_run:
                one.remove()
        except OSError as error:
            raise HoneError(f"{one.path}: can't be removed: {error.strerror or one_line(error)}") from None
        removed, freed = removed + 1, freed + one.size_bytes
    verb = "would remove" if dry_run else "removed"
    click.echo(f"{verb} {removed} entries, {freed / 1e6:,.1f} MB; {kept / 1e6:,.1f} MB stay")
