"""`hone capacity`: what a load costs, and what load is to come."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hone.cli.groups import HoneGroup
from hone.cli.prices import price_options, prices
from hone.cli.printing import columns

if TYPE_CHECKING:
    from hone.k8s.planning.cost import Demand
    from hone.k8s.planning.history import History

FILE = click.Path(path_type=Path)
ABOVE_0 = click.FloatRange(min=0, min_open=True)


@click.group(cls=HoneGroup)
def capacity() -> None:
    """What a load needs and costs, and what load is to come; `hone bench capacity` measures what a pod holds."""


@capacity.command()
@click.argument("files", nargs=-1, type=FILE, metavar="[CAPACITY.JSON]...")
@click.option("--rate", type=ABOVE_0, required=True, help="Requests per second to hold.")
@click.option("--p50", help="Limit of the median latency, such as 20ms.")
@click.option("--p95", help="Limit of the 95th percentile.")
@click.option("--p99", help="Limit of the 99th percentile. One limit must be given, the measured one.")
@click.option("--errors", default="0.001", show_default=True, help="Share that may fail, such as 0.1%.")
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Predictions in each request.")
@click.option("--spare", type=click.IntRange(0), default=1, show_default=True, help="Pods that may be lost.")
@price_options
@click.option(
    "--gpu",
    "gpu_variants",
    multiple=True,
    metavar="VARIANT",
    help="Takes a GPU, though its name doesn't say it.",
)
@click.option("--budget", metavar="AMOUNT/UNIT", help="Such as 500/month; exit status 3 when the cheapest takes more.")
@click.option("--out", type=FILE, help="JSON of all of it.")
def plan(files: tuple[Path, ...], **given: Any) -> None:
    """Pods, machines and money that --rate takes, from measured capacities, one for each variant.

    Without files those of `hone bench capacity` are taken: out/*/capacity.json. Pods are planned with the proven rate
    of the capacity, and the headroom of the manifests' autoscaler; two at least, one of them to spare.
    """
    from hone.files import atomic_write
    from hone.k8s.planning.cost import breakdown, plan_cost, require_within_budget, table

    demand = _demand(given)
    found = plan_cost(files or _measured(), demand)
    if given["out"]:
        atomic_write(given["out"], found.model_dump_json(indent=1) + "\n")
    click.echo(columns(table(found)))
    for line in breakdown(found):
        click.echo(line)
    for note in (*found.notes, *(note for variant in found.variants for note in variant.notes)):
        click.echo(f"note: {note}")
    for each in found.unfit:
        click.echo(f"does not fit: {each.file}: {each.why}")
    if found.cheapest:
        click.echo(f"cheapest: {found.cheapest}, {found.variants[0].pods} pods")
    elif not demand.price.known:
        click.echo("no prices: give --cpu-hour and --gb-hour")
    if given["out"]:
        click.echo(f"wrote {given['out']}")
    require_within_budget(found)


def _demand(given: dict[str, Any]) -> Demand:
    from hone.benchmarks.load.limits import parse_share
    from hone.cli.benchmarks.bench import slo_of
    from hone.k8s.planning.cost import Demand

    slo, _ = slo_of({name: given[name] for name in ("p50", "p95", "p99")}, parse_share(given["errors"]))
    price, budget = prices(given["cpu_hour"], given["gb_hour"], given["gpu_hour"], given["budget"])
    return Demand(given["rate"], given["rows"], slo, price, given["spare"], budget, given["gpu_variants"])


def _measured() -> list[Path]:
    found = sorted(Path("out").glob("*/capacity.json"))
    if not found:
        raise click.UsageError("no out/*/capacity.json here; name the files that hone bench capacity wrote")
    return found


@capacity.command()
@click.option("--prometheus", metavar="URL", help="Ask it for the history.")
@click.option("--query", help="PromQL of one series. [default: sum(rate(hone_requests_total[1h]))]")
@click.option("--history", type=click.FloatRange(2, 400), default=56.0, show_default=True, help="Days to ask for.")
@click.option(
    "--csv", "csv_file", type=FILE, help="Of t,rate in its place: seconds since 1970 or ISO 8601, requests/s."
)
@click.option(
    "--fill",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Longest hole to fill in, in hours.",
)
@click.option("--days", default="7,30", show_default=True, help="To look ahead.")
@click.option("--capacity", "capacity_file", type=FILE, help="Of hone bench capacity: says the pods for each peak.")
@click.option("--auth-file", type=FILE, help="Holds NAME:PASSWORD or a token. [default: $HONE_PROMETHEUS_AUTH]")
@click.option("--ca", type=FILE, help="Certificates to check that of --prometheus with.")
@click.option("--out", type=FILE, help="JSON, for hone k8s render --forecast too; a page is written beside it.")
def forecast(days: str, capacity_file: Path | None, out: Path | None, **given: Any) -> None:
    """Forecast the request rate from its history: seasons of a day and a week, a trend, peaks and their upper bounds.

    The intervals are tried on the history itself, and the output says how they did there.
    """
    from hone.capacity import read_capacity
    from hone.k8s.planning.outlook import back_test_line, check_out, summary, write_forecast
    from hone.k8s.planning.outlook import forecast as look

    _one_history(given)
    horizons = _days(days)
    if out:
        check_out(out)
    measured = None if capacity_file is None else read_capacity(capacity_file)
    past = _past(given)
    found, _ = look(past, horizons, measured)
    page = write_forecast(out, found, past) if out else None
    click.echo(columns(summary(found)))
    click.echo(back_test_line(found))
    click.echo(f"model: {found.model}")
    click.echo(f"method: {found.method}")
    for note in found.notes:
        click.echo(f"note: {note}")
    if out:
        click.echo(f"wrote {out} and {page}")


def _one_history(given: dict[str, Any]) -> None:
    if (given["prometheus"] is None) == (given["csv_file"] is None):
        raise click.UsageError("give --prometheus or --csv: one of them has the history")
    for option in ("query", "auth_file", "ca"):
        if given[option] is not None and given["csv_file"] is not None:
            raise click.UsageError(f"--{option.replace('_', '-')} is for a --prometheus")


def _past(given: dict[str, Any]) -> History:
    from hone.k8s.planning.history import QUERY, ask_prometheus, read_csv
    from hone.k8s.planning.prometheus import Access

    if given["csv_file"] is not None:
        return read_csv(given["csv_file"], given["fill"])
    access, query = Access.of(given["auth_file"], given["ca"]), given["query"] or QUERY
    return ask_prometheus(given["prometheus"], query, given["history"], time.time(), given["fill"], access)


def _days(text: str) -> list[int]:
    from hone.errors import HoneError
    from hone.k8s.planning.outlook import MOST_DAYS

    try:
        days = sorted({int(part) for part in text.split(",")})
    except ValueError:
        days = []
    if not days or days[0] < 1 or days[-1] > MOST_DAYS:
        raise HoneError(f"--days: '{text}' are no days; write 7,30, at most {MOST_DAYS}")
    return days
