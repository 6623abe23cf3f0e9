"""`hone ab`: versions beside each other in running services, and which one does better."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hone.cli.auditing import audited
from hone.cli.durations import DURATION
from hone.cli.groups import HoneGroup
from hone.cli.lifecycle.watches.kept import output_option, record_key_option
from hone.cli.printing import columns

if TYPE_CHECKING:
    from hone.lifecycle.experiments.report import Report
    from hone.lifecycle.experiments.state import Experiment

EVERY_S = 30.0

key_option = click.option(
    "--api-key", envvar="HONE_API_KEY", default="", help="With the scope operate. [default: $HONE_API_KEY]"
)


def power_options(command: Any) -> Any:
    """Give a command the options that say what is to be found."""
    for option in (
        click.option("--rate", type=click.FloatRange(0, min_open=True), help="Callers, or requests, a day."),
        click.option("--power", default=0.8, show_default=True, type=click.FloatRange(0.1, 0.99), help="To find it."),
        click.option("--sd", type=click.FloatRange(0, min_open=True), help="Of a unit's figure; a share needs none."),
        click.option("--baseline", type=float, help="Mean of the control's figure now."),
    ):
        command = option(command)
    return command


@click.group(cls=HoneGroup)
def ab() -> None:
    """Compare versions of a model on the requests of running services: latency, quality, a business figure."""


@ab.command("plan")
@click.option("--effect", required=True, help="Smallest difference that matters, such as 0.01, or 5% of the baseline.")
@click.option("--variants", default=1, show_default=True, type=click.IntRange(1, 7), help="Beside the control.")
@click.option("--share", type=click.FloatRange(0, 100, min_open=True), help="Percent for each. [default: equal parts]")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@power_options
def plan_command(
    effect: str, variants: int, share: float | None, as_json: bool, baseline: float | None, sd: float | None,
    power: float, rate: float | None,
) -> None:  # fmt: skip
    """Say how many callers, or requests, find an effect; nothing is begun."""
    from hone.lifecycle.experiments.planning import plan
    from hone.lifecycle.experiments.texts import planned

    if baseline is None:
        raise click.UsageError("--baseline, the mean of the control's figure now, is needed")
    part = 100 / (variants + 1) if share is None else share
    if part * variants >= 100:
        raise click.UsageError(f"{variants} variants with {part:g} % each leave nothing for the control")
    found = plan((100 - part * variants, *(part,) * variants), baseline, effect, sd, power, rate)
    click.echo(found.model_dump_json() if as_json else planned(found))


@ab.command()
@click.argument("name")
@click.option(
    "--to",
    "variants",
    multiple=True,
    required=True,
    metavar="VERSION[=PERCENT]",
    help="A variant: candidate, or another alias, version or variant; may be repeated.",
)
@click.option("--control", default="", help="[default: what the service answers with now]")
@click.option(
    "--url",
    "urls",
    multiple=True,
    default=("http://127.0.0.1:3000",),
    show_default=True,
    help="Of a service; may be repeated: all get one split.",
)
@click.option("--each", is_flag=True, help="Every address that the name in --url has is a service.")
@click.option("--sticky", default="", metavar="HEADER", help="Header whose value keeps a caller at one arm.")
@click.option(
    "--metric",
    default="latency",
    show_default=True,
    help="That decides: latency, accuracy, absolute_error, errors, p99, or a posted figure.",
)
@click.option("--lower", multiple=True, metavar="FIGURE", help="Of which less is better; may be repeated.")
@click.option("--zero", multiple=True, metavar="FIGURE", help="An answer without it has 0; may be repeated.")
@click.option("--wait", type=DURATION, default="0s", help="Age at which an answer counts, such as 1d for late labels.")
@click.option("--also", multiple=True, metavar="METRIC", help="Show this one, too; may be repeated.")
@click.option(
    "--guard",
    "guards",
    multiple=True,
    metavar="METRIC=WORSE",
    help="End it when a variant is worse by more. [default: errors=0.01 p99=0.02]",
)
@click.option(
    "--dir",
    "feedback",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="HONE_FEEDBACK_DIR",
    help="Folder of kept answers and feedback. [default: $HONE_FEEDBACK_DIR]",
)
@record_key_option
@output_option
@click.option("--effect", default="", help="Smallest gain that matters, such as 0.01, or 5% of the baseline.")
@click.option("--units", type=click.IntRange(200), help="Planned callers or requests. [default: from --effect]")
@click.option("--for", "lasts", type=DURATION, default="0s", help="End it after this time, decided or not.")
@click.option("--bandit", is_flag=True, help="Weights follow what is known (Thompson sampling); intervals get longer.")
@click.option("--reason", default="", help="Why; kept in the history.")
@click.option("--ca", type=click.Path(path_type=Path), help="Certificates that the services' are checked with.")
@power_options
@key_option
@audited("ab start", "name", "variants")
def start(name: str, variants: tuple[str, ...], urls: tuple[str, ...], api_key: str, ca: Path | None,
          **options: Any) -> dict[str, str]:  # fmt: skip
    """Give each variant of NAME its part of the requests, in every service at --url, and return.

    `hone ab watch` keeps the guardrails then, `hone ab status` shows who wins, `hone ab stop` ends it. One may look at
    any time: however often, at most one of twenty tests of equal versions ever finds a winner.
    """
    from hone.lifecycle.experiments.begin import begin, prepare
    from hone.lifecycle.experiments.planning import fields_of
    from hone.lifecycle.experiments.state import only_one
    from hone.lifecycle.experiments.texts import planned
    from hone.services.status.asking import Access, check_address

    given = _variants(variants)
    control, each = options.pop("control"), options.pop("each")
    fields, plan = fields_of(given, options)
    access = Access(api_key, ca)
    addresses = [check_address(url) for url in dict.fromkeys(urls)]
    with only_one(name):
        made = prepare(name, given, addresses, access, control=control, each=each, **fields)
        found, lost = begin(made, access)
    for arm, version, weight in zip(found.arms, found.versions, found.weights, strict=True):
        click.echo(f"{arm:<12} {name}:{version} gets {weight:g} %")
    unit = "callers" if found.sticky else "requests"
    click.echo(planned(plan) if plan is not None else f"{found.units:,.0f} {unit} are planned")
    for url in lost:
        click.echo(f"{url} doesn't keep the split over a restart; hone ab watch {name} gives it back", err=True)
    click.echo(f"hone ab watch {name} keeps the guardrails; hone ab status {name} shows who wins")
    return {"arms": ", ".join(f"{arm} {weight:g}" for arm, weight in zip(found.arms, found.weights, strict=True))}


@ab.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the report: .html or .json.")
@key_option
def status(name: str | None, as_json: bool, out: Path | None, api_key: str) -> None:
    """Show who wins the A/B test of NAME, and what was checked; without NAME, every test. Nothing is changed."""
    from hone.lifecycle.experiments.state import known, names
    from hone.lifecycle.experiments.texts import overview, shown, write_report

    if name is None:
        click.echo(columns(overview([known(one) for one in names()], time.time())))
        return
    report = _report(known(name), api_key)
    if out is not None:
        write_report(report, out)
    if as_json:
        click.echo(report.model_dump_json())
        return
    for part in shown(report):
        click.echo(part if isinstance(part, str) else columns(part))


@ab.command()
@click.argument("name")
@click.option("--every", type=DURATION, default=f"{EVERY_S:g}s", show_default=True, help="Between two looks.")
@click.option("--once", is_flag=True, help="Look once, for a timer or a CronJob.")
@click.option("--stop-when-decided", "deciding", is_flag=True, help="End it when it is decided: the winner answers.")
@key_option
@audited("ab watch", "name")
def watch(name: str, every: float, once: bool, deciding: bool, api_key: str) -> None:
    """Keep the guardrails of NAME's A/B test: a variant that breaks one gets no more requests (exit status 3).

    A service that was started anew gets its split back, a bandit's weights are changed, and the test ends when its time
    is over (exit status 4 when nothing is decided). Killed, it is simply run again.
    """
    from hone.lifecycle.experiments.metrics import ExperimentError
    from hone.lifecycle.experiments.replicas import access_of
    from hone.lifecycle.experiments.state import known, only_one
    from hone.lifecycle.experiments.watch import EndedError, Watcher

    watcher = Watcher(name, access_of(known(name), api_key), click.echo, deciding=deciding)
    while True:
        try:
            with only_one(name):
                report = watcher.look()
        except EndedError as ended:
            if ended.exit_code:
                raise
            click.echo(str(ended))
            return
        except ExperimentError as error:
            if once or known(name).status != "stopping":
                raise
            click.echo(str(error), err=True)
        if once:
            click.echo(f"{name}: {report.told}")
            return
        time.sleep(every)


@ab.command()
@click.argument("name")
@click.option("--answer", default="", metavar="ARM", help="That gets all requests. [default: the winner, else control]")
@click.option("--promote", is_flag=True, help="Make it the champion, if the gates of a promotion let it pass.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the report: .html or .json.")
@key_option
@audited("ab stop", "name")
def stop(name: str, answer: str, promote: bool, out: Path | None, api_key: str) -> dict[str, str]:
    """End the A/B test of NAME: the winner answers all requests, or where there is none the control."""
    from hone.lifecycle.experiments.end import chosen, end, promotion_of
    from hone.lifecycle.experiments.metrics import ExperimentError
    from hone.lifecycle.experiments.replicas import access_of
    from hone.lifecycle.experiments.state import known, only_one
    from hone.lifecycle.experiments.texts import write_report

    with only_one(name):
        experiment = known(name)
        if experiment.ended:
            raise ExperimentError(f"the A/B test of '{name}' has ended: {experiment.told or experiment.answer}")
        report = _report(experiment, api_key) if experiment.status == "running" else None
        arm, why = chosen(experiment, report, answer)
        promotion = promotion_of(experiment, arm) if promote else None
        ended = end(experiment, access_of(experiment, api_key), arm, why, report, promotion)
    if out is not None and report is not None:
        write_report(report.model_copy(update={"status": "stopped", "answer": arm, "why_ended": why}), out)
    click.echo(f"{ended.tag(arm)} ({arm}) answers all requests: {why}")
    if arm != ended.arms[0] and not promote:
        click.echo("a service that is started again answers with what it was started with; --promote changes that")
    return {"answer": ended.tag(arm)}


@ab.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, with the evidence.")
def history(name: str | None, as_json: bool) -> None:
    """Show the steps of A/B tests: who, when, why; the registry's chain of records is checked first."""
    from hone.cli.lifecycle.registry import show_changes
    from hone.lifecycle.registry.history import changes

    show_changes([change for change in changes(name) if change.action == "ab"], as_json)


def _variants(texts: tuple[str, ...]) -> list[tuple[str, float]]:
    """Return the variants and their percents; those without one get an equal part each."""
    pairs = [text.partition("=") for text in texts]
    try:
        return [(name, float(part) if equals else 100 / (len(pairs) + 1)) for name, equals, part in pairs]
    except ValueError:
        raise click.UsageError(f"--to: {', '.join(texts)}: give VERSION or VERSION=PERCENT") from None


def _report(experiment: Experiment, api_key: str) -> Report:
    """Return what is known now; of a test that has ended, what was known then."""
    from hone.lifecycle.experiments.end import kept_report
    from hone.lifecycle.experiments.replicas import access_of
    from hone.lifecycle.experiments.watch import look

    kept = kept_report(experiment) if experiment.ended else None
    return kept or look(experiment, access_of(experiment, api_key), time.time())[0]
