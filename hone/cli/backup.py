"""`hone backup` and `hone restore`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hone.cli.auditing import audited

STATE = ("HONE_API_KEYS", "HONE_AUDIT_LOG")
"""Settings that name files of a service: they are backed up without being asked for."""


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--include", multiple=True, type=click.Path(path_type=Path), help="A file or folder, too; may be repeated."
)
@click.option("--keep", type=click.IntRange(1), help="TARGET is a folder: keep so many backups, the newest.")
@audited("backup", "target")
def create(target: Path, include: tuple[Path, ...], keep: int | None) -> None:
    """Write the model store and other files to TARGET, a .tar.gz or a folder that gets dated ones.

    The files that HONE_API_KEYS and HONE_AUDIT_LOG name go in, too. What a pass cache holds can be made again; to keep
    it, include its folder.
    """
    from hone.lifecycle.backup.backup import create as write
    from hone.lifecycle.backup.restore import verify as check

    named = [Path(os.environ[name]) for name in STATE if os.environ.get(name)]
    file = write(target, (*include, *(path for path in named if path.is_file())), keep or 0)
    click.echo(f"wrote {file}: {check(file).summary()}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
def verify(file: Path) -> None:
    """Check every part of a backup FILE against its hash."""
    from hone.lifecycle.backup.restore import verify as check

    click.echo(f"{file}: {check(file).summary()}; every hash is right")


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--files",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder below which included files are written, too. [default: they are left out]",
)
@click.option("--force", is_flag=True, help="Replace what is there and differs.")
@click.option("--trust-code", is_flag=True, help="Let in models that bring code, and let them run here.")
@audited("restore", "file")
def restore(file: Path, files: Path | None, force: bool, trust_code: bool) -> None:
    """Bring back the models that a backup FILE holds, after checking all of it; nothing that is there is overwritten.

    Included files, such as keys and manifests, are written when --files says where: whoever made the backup chose their
    names, so let only a backup that you trust write into a folder that programs are run from.
    """
    from hone.lifecycle.backup.restore import restore as bring_back
    from hone.store.trust import Policy

    done = bring_back(file, policy=Policy.from_environment(code=trust_code), files=files, force=force)
    for name in done.written:
        click.echo(f"restored {name}")
    for name in done.present:
        click.echo(f"present  {name}")
    for name in done.left_out:
        click.echo(f"left out {name}")
    if done.left_out:
        click.echo(f"{len(done.left_out)} file(s) left out; --files FOLDER writes them below it", err=True)


BACKUP_COMMANDS = (create, verify)
