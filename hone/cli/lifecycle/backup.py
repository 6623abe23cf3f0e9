"""`hone backup`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hone.cli.auditing import audited
from hone.cli.groups import DefaultGroup

STATE = ("HONE_API_KEYS", "HONE_AUDIT_LOG")
"""Settings that name files of a service: they are backed up without being asked for."""


@click.group(cls=DefaultGroup, default="create")
def backup() -> None:
    """Write a backup: `hone backup FILE.tar.gz`, or check one: `hone backup verify FILE`."""


@backup.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--include", multiple=True, type=click.Path(path_type=Path), help="A file or folder, too; may be repeated."
)
@click.option("--keep", type=click.IntRange(1), help="TARGET is a folder: keep so many backups, the newest.")
@audited("backup", "target")
def create(target: Path, include: tuple[Path, ...], keep: int | None) -> None:
    """Write the model store and other files to TARGET, a .tar.gz or a folder that gets dated ones.

    The registry goes in with the store. The files that HONE_API_KEYS and HONE_AUDIT_LOG name go in, too. What a pass
    cache holds can be made again; to keep it, include its folder.
    """
    from hone.lifecycle.backup.backup import create as write
    from hone.lifecycle.backup.restore import verify as check

    named = [Path(os.environ[name]) for name in STATE if os.environ.get(name)]
    file = write(target, (*include, *(path for path in named if path.is_file())), keep or 0)
    click.echo(f"wrote {file}: {check(file).summary()}")


@backup.command()
@click.argument("file", type=click.Path(path_type=Path))
def verify(file: Path) -> None:
    """Check every part of a backup FILE against its hash."""
    from hone.lifecycle.backup.restore import verify as check

    click.echo(f"{file}: {check(file).summary()}; every hash is right")
