"""`hone rollout`: a new version gets more and more of a running service's requests, as long as it does well."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hone.cli.auditing import audited
from hone.cli.durations import DURATION
from hone.cli.groups import HoneGroup
from hone.cli.lifecycle.registry import GATES, drift_option
from hone.cli.lifecycle.watches.kept import output_option, record_key_option

if TYPE_CHECKING:
    from hone.lifecycle.rollout.state import Rollout
    from hone.services.status.asking import Access

DEFAULT_URL = "http://127.0.0.1:3000"
STEPS = "5,25,50,100"
DEFAULT_WRONG = 0.02
key_option = click.option(
    "--api-key", envvar="HONE_API_KEY", default="", help="With the scope operate. [default: $HONE_API_KEY]"
)


@click.group(cls=HoneGroup)
def rollout() -> None:
    """Give a new version more of the requests, step by step, and go back by itself when it does worse."""


@rollout.command()
@click.argument("name")
@click.option("--to", required=True, help="The new version: candidate, or another alias, version or variant.")
@click.option("--url", help="Of the service. [default: replicas of hone up, else http://127.0.0.1:3000]")
@click.option(
    "--strategy",
    type=click.Choice(["canary", "blue-green", "rolling"]),
    default="canary",
    show_default=True,
    help="The last two are for replicas of hone up.",
)
@click.option("--steps", help="Percent of the requests, of a canary. [default: 5,25,50,100]")
@click.option("--window", type=DURATION, help="That each step takes at least. [default: 2m; rolling: 10s]")
@click.option("--patience", type=DURATION, help="For a step without enough evidence. [default: 10 windows]")
@click.option("--errors", default=0.01, show_default=True, type=click.FloatRange(0, 1), help="More failures allowed.")
@click.option("--p99", default=0.02, show_default=True, type=click.FloatRange(0, 1), help="More slow ones allowed.")
@click.option("--agreement", default=0.0, type=click.FloatRange(0, 1), help="Least share of equal answers.")
@click.option(
    "--labels",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of kept answers and feedback, HONE_FEEDBACK_DIR of the services: a step waits for labels, too.",
)
@click.option("--wrong", type=click.FloatRange(0, 1), help="More wrong answers allowed, by labels. [default: 0.02]")
@output_option
@record_key_option
@click.option("--compare", default=0.0, type=click.FloatRange(0, 1), help="Share answered by both, for --agreement.")
@click.option("--sticky", default="", help="Header whose value keeps a caller at one version.")
@click.option("--reason", default="", help="Why; kept in the history.")
@click.option("--approve", is_flag=True, help="Approve it, where the recipe asks for a person; needs --reason.")
@click.option("--waive", multiple=True, type=click.Choice(GATES), help="Let this gate pass; needs --reason.")
@drift_option
@click.option("--no-promotion", is_flag=True, help="Leave the registry alone.")
@click.option("--ca", type=click.Path(path_type=Path), help="Certificates that the service's is checked with.")
@key_option
@audited("rollout start", "name", "to")
def start(
    name: str, to: str, url: str | None, strategy: str, steps: str | None, window: float | None,
    patience: float | None, sticky: str, compare: float, reason: str, approve: bool, waive: tuple[str, ...],
    sketches: Path | None, no_promotion: bool, ca: Path | None, api_key: str, labels: Path | None,
    wrong: float | None, output: str, record_key: Path | None, **limits: float,
) -> dict[str, str]:  # fmt: skip
    """Roll a version of NAME out at a running service, and promote it when it does well with all requests.

    A step ends when its window is over and the version is proven to do well enough beside the one that serves: no more
    failures, no more answers beyond that one's p99, but what --errors and --p99 allow; with --labels no more wrong
    answers, but what --wrong allows. Worse, and it is rolled back: exit status 3. Not enough evidence, and the rollout
    pauses: exit status 4. Killed, it goes on with `resume`.

    Where `hone up NAME` runs, its replicas are rolled. Canary: replicas of the new version are added, and get --steps.
    Blue-green: a second set is started, gets all requests at once, and the old set is kept for the window. Rolling:
    replicas are exchanged one after the other. In these two a step ends when nothing speaks against the version.
    """
    from hone.lifecycle.rollout.begin import begin
    from hone.lifecycle.rollout.state import only_one
    from hone.services.status.asking import Access, check_address

    if (approve or waive) and not reason.strip():
        raise click.UsageError("--approve and --waive need a --reason")
    if limits["agreement"] and not compare:
        raise click.UsageError("--agreement needs --compare, the share of requests that both versions answer")
    kept = _labels(labels, wrong, output, record_key)
    kind = _kind(name, strategy, url)
    if strategy != "canary" and steps is not None:
        raise click.UsageError(f"--steps: {strategy} has its own")
    if kind != "split" and (sticky or compare):
        raise click.UsageError("--sticky and --compare: nginx can't; roll out at one service, with --url")
    if window is None:
        window = 10.0 if strategy == "rolling" else 120.0
    access = Access(api_key, ca)
    with only_one(name):
        found = begin(
            name, to, check_address(url or DEFAULT_URL), access, strategy=kind, steps=_percents(steps or STEPS),
            window_s=window, patience_s=10 * window if patience is None else patience, limits=limits, reason=reason,
            waived=waive, approval=reason if approve else "", promoting=not no_promotion, sketches=sketches,
            rules={"sticky": sticky, "compare": compare} if kind == "split" else {}, labels=kept,
        )  # fmt: skip
        return _drive(found, access)


def _labels(folder: Path | None, wrong: float | None, output: str, key: Path | None) -> Any:
    """Return where labels come from, None where nobody asked for them."""
    from hone.lifecycle.rollout.state import Labels

    if folder is None:
        if wrong is not None or output:
            raise click.UsageError("--wrong and --output need --labels, the folder of kept answers and feedback")
        return None
    place = str(key.resolve()) if key else ""
    return Labels(
        folder=str(folder.resolve()), key=place, output=output, allowed=DEFAULT_WRONG if wrong is None else wrong
    )


def _kind(name: str, strategy: str, url: str | None) -> Any:
    """Return how the requests are dealt out: by the replicas of this host, where they run and no service is named."""
    from hone.lifecycle.replicas.state import is_kept

    if strategy == "canary":
        return "canary" if url is None and is_kept(name) else "split"
    if url is not None:
        raise click.UsageError(f"--url: {strategy} is for the replicas that hone up {name} keeps running here")
    return strategy


@rollout.command()
@click.argument("name")
@key_option
@audited("rollout resume", "name")
def resume(name: str, api_key: str) -> dict[str, str]:
    """Go on with a rollout that paused, or whose command was killed, from the step where it was."""
    from hone.lifecycle.rollout.state import RolloutError, only_one

    with only_one(name):
        found = _known(name)
        if found.ended:
            raise RolloutError(f"the rollout of {name}:{found.canary} has ended: {found.status}")
        # Its patience begins anew.
        return _drive(found.becoming(since=0.0 if found.status == "paused" else found.since), _access(found, api_key))


@rollout.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object, with the evidence.")
@key_option
def status(name: str, as_json: bool, api_key: str) -> None:
    """Say where the last rollout of NAME stands, and what the service's verdict is now."""
    from hone.errors import HoneError

    found = _known(name)
    verdict: dict[str, Any] = {}
    if not found.ended:
        try:
            verdict = _verdict(found, api_key)
        except HoneError as error:
            verdict = {"verdict": "unknown", "reason": str(error)}
    if as_json:
        click.echo(json.dumps({**found.model_dump(mode="json", exclude={"promotion"}), "now": verdict}))
        return
    click.echo(f"{name}:{found.canary} beside {name}:{found.stable} {_where(found)}: {found.status}")
    click.echo(f"  step     {found.share:g} %, of {', '.join(f'{one:g}' for one in found.steps)}")
    if found.told:
        click.echo(f"  because  {found.told}")
    if verdict:
        click.echo(f"  now      {verdict['verdict']}: {verdict['reason']}")


@rollout.command()
@click.argument("name")
def pause(name: str) -> None:
    """Leave a rollout at its step: the weights stay, until `resume` or `abort`."""
    _ask(name, "pause")


@rollout.command()
@click.argument("name")
@key_option
@audited("rollout abort", "name")
def abort(name: str, api_key: str) -> None:
    """Give all requests to the version that served before, at once."""
    _ask(name, "abort", api_key)


@rollout.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the evidence.")
def history(name: str | None, as_json: bool) -> None:
    """Show the steps of rollouts: who, when, why; the registry's chain of records is checked first."""
    from hone.cli.lifecycle.registry import show_changes
    from hone.lifecycle.registry.history import changes

    show_changes([change for change in changes(name) if change.action == "rollout"], as_json)


def _where(found: Rollout) -> str:
    return f"at {found.url}" if found.strategy == "split" else f"behind {found.url} ({found.strategy})"


def _percents(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(one) for one in text.split(","))
    except ValueError:
        raise click.UsageError(f"--steps: '{text}' is no list of percents such as 5,25,50,100") from None


def _known(name: str) -> Rollout:
    from hone.lifecycle.rollout.state import RolloutError, rollout_of

    found = rollout_of(name)
    if found is None:
        raise RolloutError(f"'{name}' was never rolled out here; hone rollout start {name} --to candidate")
    return found


def _access(found: Rollout, api_key: str) -> Access:
    from hone.services.status.asking import Access

    return Access(api_key, Path(found.ca) if found.ca else None)


def _verdict(found: Rollout, api_key: str) -> dict[str, Any]:
    from hone.lifecycle.rollout.drive import dealer_of, with_labels
    from hone.lifecycle.rollout.labels import Labeled

    verdict = dealer_of(found, _access(found, api_key)).verdict(found)
    return with_labels(verdict, found, Labeled(found.labels) if found.labels else None)


def _drive(found: Rollout, access: Access) -> dict[str, str]:
    from hone.lifecycle.rollout.drive import Driver

    driver = Driver(found, access, click.echo)
    driver.run()
    return {"to": f"{found.name}:{found.canary}", "status": driver.rollout.status}


def _ask(name: str, wish: Any, api_key: str = "") -> None:
    """Ask the process that drives a rollout for something; where none does, do it."""
    from hone.lifecycle.rollout.drive import Driver
    from hone.lifecycle.rollout.state import RolloutError, ask_driver, only_one

    found = _known(name)
    if found.ended:
        raise RolloutError(f"the rollout of {name}:{found.canary} has ended: {found.status}")
    try:
        with only_one(name):
            if wish == "pause":
                found.becoming(status="paused", told="asked for")
            else:
                Driver(found, _access(found, api_key), click.echo).abort("asked for")
            click.echo(f"the rollout of {name}:{found.canary} is {'paused' if wish == 'pause' else 'aborted'}")
    except RolloutError as error:
        if not error.is_driven:
            raise
        ask_driver(name, wish)
        click.echo(f"the process that drives it will {wish}; hone rollout status {name}")
