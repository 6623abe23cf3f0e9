"""`hone split`: versions of a model share a running service's requests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from hone.cli.auditing import audited
from hone.cli.groups import HoneGroup
from hone.cli.printing import columns


def service_options(command: Any) -> Any:
    """Give a command the options that say which service, and with which key."""
    for option in (
        click.option("--ca", type=click.Path(path_type=Path), help="Certificates that the service's is checked with."),
        click.option("--api-key", envvar="HONE_API_KEY", default="", help="[default: $HONE_API_KEY]"),
        click.option("--url", default="http://127.0.0.1:3000", show_default=True, help="Of the service."),
    ):
        command = option(command)
    return command


@click.group(cls=HoneGroup)
def split() -> None:
    """Share a model's requests out among its versions, while the service runs."""


@split.command("set")
@click.argument("model")
@click.option("--champion", type=click.FloatRange(0, 100), help="Percent for MODEL@champion.")
@click.option("--candidate", type=click.FloatRange(0, 100), help="Percent for MODEL@candidate.")
@click.option("--previous", type=click.FloatRange(0, 100), help="Percent for MODEL@previous.")
@click.option("--arm", "arms", multiple=True, metavar="VERSION=PERCENT", help="For any version; may be repeated.")
@click.option("--sticky", default="", metavar="HEADER", help="Header whose value keeps a caller at one arm.")
@click.option("--fallback", is_flag=True, help="A request that an arm fails on, or sheds, goes to the next arm.")
@click.option("--compare", type=click.FloatRange(0, 1), default=0.0, help="Share that the first arm computes, too.")
@service_options
@audited("split set", "model")
def set_command(
    model: str, arms: tuple[str, ...], sticky: str, fallback: bool, compare: float, url: str, api_key: str,
    ca: Path | None, **aliases: float | None,
) -> dict[str, str]:  # fmt: skip
    """Share the requests for MODEL out: percents that are 100 together; the first arm is the stable one.

    Each version is loaded and its golden rows are checked in every worker before it gets a request.
    """
    from hone.services.status.splitting import Share

    given = [Share(alias, alias, weight) for alias, weight in aliases.items() if weight is not None]
    given += [_arm(text) for text in arms]
    if not given:
        raise click.UsageError("which versions? Such as --champion 90 --candidate 10")
    found = _remote(model, url, api_key, ca).set(given, sticky=sticky, fallback=fallback, compare=compare)
    _print(found)
    if not found.get("kept"):
        click.echo("it is not kept over a restart of the service; the service's log says why", err=True)
    return {"arms": ", ".join(f"{arm.name} {arm.weight:g}" for arm in given)}


@split.command()
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="As the service answers.")
@service_options
def show(model: str, as_json: bool, url: str, api_key: str, ca: Path | None) -> None:
    """Show the split of MODEL, and what its arms have done."""
    found = _remote(model, url, api_key, ca).show()
    if as_json:
        click.echo(json.dumps(found))
    elif found["split"] is None:
        click.echo(f"the requests for '{model}' are not split")
    else:
        _print(found)


@split.command()
@click.argument("model")
@click.option("--answer", default="", metavar="ARM", help="That gets all requests. [default: what answered before]")
@service_options
@audited("split clear", "model")
def clear(model: str, answer: str, url: str, api_key: str, ca: Path | None) -> None:
    """End the split of MODEL; what was loaded for it is unloaded."""
    found = _remote(model, url, api_key, ca).clear(answer)
    what = f"{model}:{found['answers']} answers all requests" if "answers" in found else "nothing was split"
    click.echo(what)


def _remote(model: str, url: str, api_key: str, ca: Path | None) -> Any:
    from hone.services.status.asking import Access, check_address
    from hone.services.status.splitting import RemoteSplit

    return RemoteSplit(check_address(url), model, Access(api_key, ca))


def _arm(text: str) -> Any:
    from hone.services.status.splitting import Share

    version, _, percent = text.rpartition("=")
    try:
        return Share(version, version, float(percent))
    except ValueError:
        raise click.UsageError(f"--arm: '{text}' is not VERSION=PERCENT") from None


def _print(found: dict[str, Any]) -> None:
    rows = [("ARM", "VERSION", "PERCENT", "REQUESTS", "ERRORS", "P99")]
    for arm in found["split"]["arms"]:
        done = found["arms"][arm["name"]]
        p99 = "-" if done["p99_ms"] is None else f"{done['p99_ms']:.3g} ms"
        counts = (str(done["requests"]), str(done["errors"]))
        rows.append((arm["name"], arm["version"], f"{arm['weight']:g}", *counts, p99))
    click.echo(columns(rows))
    if found["split"]["sticky"]:
        click.echo(f"by the header {found['split']['sticky']}")
