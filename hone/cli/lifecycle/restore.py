"""`hone restore`."""

from __future__ import annotations

from pathlib import Path

import click

from hone.cli.auditing import audited


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
    for name in done.kept:
        click.echo(f"kept     {name}: there already, and says otherwise")
    if done.left_out:
        click.echo(f"{len(done.left_out)} file(s) left out; --files FOLDER writes them below it", err=True)
