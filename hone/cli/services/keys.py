"""`hone keys`: who may call a service."""

from __future__ import annotations

from pathlib import Path

import click

from hone.cli.auditing import audited
from hone.cli.groups import HoneGroup

DEFAULT_FILE = "hone-keys.yaml"
FILE = click.option(
    "--file", type=click.Path(dir_okay=False, path_type=Path), default=DEFAULT_FILE, show_default=True, help="Key file."
)


def _check_scopes(_: click.Context, __: click.Parameter, scopes: tuple[str, ...]) -> tuple[str, ...]:
    from hone.services.access.callers import check_scope

    for scope in scopes:
        try:
            check_scope(scope)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    return scopes


@click.group(cls=HoneGroup)
def keys() -> None:
    """Make, list and remove API keys."""


@keys.command()
@click.argument("identity")
@click.option(
    "--scope",
    multiple=True,
    default=("predict",),
    show_default=True,
    callback=_check_scopes,
    help="read, predict, operate or admin, or for one model predict:NAME and the like; may be repeated.",
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Requests a second. [default: the server's]")
@FILE
@audited("keys new", "identity", "scope", "file")
def new(identity: str, scope: tuple[str, ...], rate: float | None, file: Path) -> None:
    """Make a key for IDENTITY; it is shown once, the file keeps its hash."""
    from hone.services.access.api_keys import add_key

    key = add_key(file, identity, scope, rate)
    click.echo(key)
    click.echo(f"added '{identity}' to {file}; serve with --api-keys {file}, call with 'x-api-key: KEY'", err=True)


@keys.command("list")
@FILE
def list_keys(file: Path) -> None:
    """List who has a key."""
    from hone.services.access.api_keys import read_keys

    for caller in read_keys(file).values():
        rate = f"{caller.rate_per_s:g}/s" if caller.rate_per_s else "the server's limit"
        click.echo(f"{caller.id}\t{','.join(sorted(caller.scopes))}\t{rate}")


@keys.command()
@click.argument("identity")
@FILE
@audited("keys rm", "identity", "file")
def rm(identity: str, file: Path) -> None:
    """Remove the key of IDENTITY; running servers notice within a second."""
    from hone.services.access.api_keys import remove_key

    remove_key(file, identity)
    click.echo(f"removed '{identity}' from {file}")
