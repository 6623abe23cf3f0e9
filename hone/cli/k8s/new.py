"""`hone new`: files to start from."""

from __future__ import annotations

from pathlib import Path

import click

from hone.cli.groups import HoneGroup


@click.group(cls=HoneGroup)
def new() -> None:
    """Write files to start from: `hone new service NAME MODEL...`."""


@new.command()
@click.argument("name")
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--out", type=click.Path(path_type=Path), help="A new or empty folder to write into. [default: ./NAME]")
def service(name: str, models: tuple[str, ...], out: Path | None) -> None:
    """Write a folder with a BentoML service NAME of your own around stored MODELs.

    Each MODEL is NAME, NAME:VARIANT or a full tag; the first answers /predict. In the folder: the service, what
    `bentoml build` needs, a test and a README with the commands.
    """
    from hone.k8s.tools.new_service import write_service

    target = out or Path(name)
    title = write_service(name, models, target)
    click.echo(f"wrote {target}; try: cd {target} && bentoml serve service:{title}")
