"""`hone audit`: whether what was recorded is still what it was."""

from __future__ import annotations

from pathlib import Path

import click

from hone.cli.groups import HoneGroup


@click.group(cls=HoneGroup)
def audit() -> None:
    """Check the log of admin actions, and recorded traffic."""


@audit.command()
@click.argument("file", type=click.Path(path_type=Path))
def verify(file: Path) -> None:
    """Check that no record of an audit log or of recorded traffic was changed or taken out.

    FILE is a log, what was collected of servers' standard output (HONE_AUDIT_LOG=-), or a folder of HONE_RECORD_DIR.
    """
    if file.is_dir():
        _verify_traffic(file)
        return
    from hone.audit import verify as check

    result = check(file)
    chains = "the chain holds" if result.chains <= 1 else f"all {result.chains} chains hold"
    click.echo(f"{file}: {result.records} records, {chains}; head {result.head}")


def _verify_traffic(folder: Path) -> None:
    from hone.services.observe.record_chain import verify as check

    result = check(folder)
    gone = f", the {result.removed} before them were removed" if result.removed else ""
    gone += f"; {result.deleted} rows were deleted, as deletions.jsonl says" if result.deleted else ""
    click.echo(f"{folder}: {result.files} files, {result.rows} rows, the chain holds{gone}; head {result.head}")
