"""`hone bench`: a load test, and the search for a capacity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hone.cli.comparing import compare
from hone.cli.groups import DefaultGroup
from hone.cli.references import pinned

if TYPE_CHECKING:
    from hone.benchmarks.capacity.search import Effort
    from hone.benchmarks.load.limits import Baseline
    from hone.benchmarks.load.run import Options
    from hone.benchmarks.load.target import Access, Target
    from hone.benchmarks.scenarios import Scenario
    from hone.capacity import Slo

MOST_ERRORS = 0.5


def _service_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say where the service is and how it lets callers in."""
    for option in (
        click.option("--ca", type=click.Path(path_type=Path, exists=True), help="Certificates to check its own with."),
        click.option("--api-key", envvar="HONE_BENCH_KEY", default="", help="Better: $HONE_BENCH_KEY."),
        click.option("--url", help="A running service. [default: start one and stop it afterwards]"),
    ):
        command = option(command)
    return command


_max_late = click.option(
    "--max-late", default="5%", show_default=True, help="Share that the generator may start over 1 ms late; else void."
)


def _access(api_key: str, ca: Path | None, grpc: str = "") -> Access:
    from hone.benchmarks.load.target import Access

    return Access(api_key, ca, grpc)


@click.group(cls=DefaultGroup, default="load")
def bench() -> None:
    """Load-test a model: `hone bench MODEL`, or search its capacity: `hone bench capacity MODEL --p99 50ms`."""


@bench.command()
@click.argument("model", callback=pinned)
@click.option("--p50", help="Limit of the median latency, such as 20ms.")
@click.option("--p95", help="Limit of the 95th percentile.")
@click.option("--p99", help="Limit of the 99th percentile. One limit must be given.")
@click.option("--errors", default="0.001", show_default=True, help="Share that may fail, such as 0.1%.")
@_service_options
@click.option("--workers", type=click.IntRange(1), help="Of the service that is started. [default: 1, or the plan's]")
@click.option("--image-record", type=click.Path(path_type=Path), help="image.json of the image that --url runs.")
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Rows in each request.")
@click.option(
    "--duration", type=click.FloatRange(min=2), default=10.0, show_default=True, help="Seconds of a short trial."
)
@click.option(
    "--repeats", type=click.IntRange(1), default=3, show_default=True, help="Trials before a proof is judged."
)
@click.option("--minutes", type=click.FloatRange(min=0.2), help="For all trials. [default: 10, with --tune 60]")
@_max_late
@click.option("--tune", is_flag=True, help="Search variants and serving settings for the most rate at the least cost.")
@click.option("--cpu-hour", type=click.FloatRange(min=0), help="With --tune: price of a core for an hour.")
@click.option("--gb-hour", type=click.FloatRange(min=0), help="With --tune: price of a GB of memory for an hour.")
@click.option("--out", type=click.Path(path_type=Path), help="[default: out/NAME/capacity.json]")
def capacity(model: str, url: str | None, api_key: str, ca: Path | None, out: Path | None, **given: Any) -> None:
    """Find the highest rate at which MODEL meets a latency limit, and write capacity.json.

    Open loop: each rate is tried with Poisson arrivals. A rate a little below is proven: the lower bound of the
    capacity, with 95 % confidence. Trials are kept: after Ctrl-C the same command goes on from there.

    With --tune the service is started with other workers, threads, batches and variants of MODEL, too; those that are
    beaten leave, the rest are proven, and capacity.json is that of the best: `hone k8s render` runs pods with its plan.
    """
    from hone.benchmarks.capacity.find import Request, find_capacity
    from hone.benchmarks.capacity.search import Effort
    from hone.benchmarks.load.limits import parse_share
    from hone.benchmarks.load.run import find_target
    from hone.k8s.tools.image_record import measured_image
    from hone.services.launch import served

    if given["image_record"] is not None and url is None:
        raise click.UsageError("--image-record is of an image that runs: give its --url")
    slo, limit = slo_of({name: given[name] for name in ("p50", "p95", "p99")}, parse_share(given["errors"]))
    minutes = given["minutes"] or (60.0 if given["tune"] else 10.0)
    effort, late = Effort(given["duration"], given["repeats"], minutes * 60), parse_share(given["max_late"])
    rows, workers = given["rows"], given["workers"]
    command = f"hone bench capacity {model} {limit} --rows {rows}"
    if given["tune"]:
        if url is not None:
            raise click.UsageError("--tune starts services with settings of its own: leave --url out")
        _tune(model, slo, effort, late, out, f"{command} --tune", given)
        return
    if given["cpu_hour"] is not None or given["gb_hour"] is not None:
        raise click.UsageError("--cpu-hour and --gb-hour are prices for --tune: give that, too")
    with served(url, model, workers) as (base, ready_s):
        target = find_target(base, model, _access(api_key, ca))
        record = given["image_record"]
        image = None if record is None else measured_image(record, target.tag, target.digest)
        file = out or Path("out") / target.name / "capacity.json"
        request = Request(slo, rows, effort, url, workers or 1, ready_s, image, command, late)
        found = find_capacity(target, request, file, _say)
    click.echo(found.summary())
    click.echo(f"capacity: {file}")


def _tune(
    model: str, slo: Slo, effort: Effort, late: float, out: Path | None, command: str, given: dict[str, Any]
) -> None:
    from hone.benchmarks.load.run import require_packages
    from hone.benchmarks.tuned import Prices
    from hone.benchmarks.tuning.find import find_settings
    from hone.benchmarks.tuning.trials import Request

    require_packages()
    prices = Prices(cpu_hour=given["cpu_hour"], gb_hour=given["gb_hour"])
    request = Request(model, slo, given["rows"], effort, given["workers"], prices, late, command)
    file = out or Path("out") / model.partition(":")[0] / "capacity.json"
    tuning, found = find_settings(request, file, _say)
    for line in tuning.table():
        click.echo(line)
    click.echo(found.summary())
    click.echo(f"settings: {file.with_name('tune.json')}")
    click.echo(f"capacity: {file}")


def slo_of(percentiles: Mapping[str, str | None], errors: float) -> tuple[Slo, str]:
    """Return what the service is to hold, and the option that says so, as it was written."""
    from hone.benchmarks.load.limits import parse_ms
    from hone.capacity import Slo

    limits = [(name, text) for name, text in percentiles.items() if text]
    if len(limits) != 1:
        raise click.UsageError("give one of --p50, --p95 and --p99")
    if errors > MOST_ERRORS:
        raise click.UsageError(f"--errors {errors:g}: a service that fails so often has no capacity")
    name, text = limits[0]
    percentile: Any = f"{name}_ms"
    return Slo(percentile=percentile, limit_ms=parse_ms(text), errors=errors), f"--{name} {text}"


bench.add_command(compare)


@bench.command()
@click.argument("model", callback=pinned)
@_service_options
@click.option("--out", type=click.Path(path_type=Path), help="Folder of load.json. [default: out/NAME]")
@click.option(
    "--rate", type=click.FloatRange(min=0, min_open=True), help="Requests per second. [default: half the capacity]"
)
@click.option("--arrivals", help="poisson, constant, burst, ramp or day. [default: poisson]")
@click.option("--users", type=click.IntRange(1), help="Closed loop instead, with this many callers.")
@click.option("--rows", type=click.IntRange(1), help="Rows in each request. [default: 1]")
@click.option("--sizes", help="Rows in requests, with shares, 1:70%,8:25%,64:5%, or weights.")
@click.option("--protocol", default="json", show_default=True, help="Or rows, v2, v2-binary, grpc, arrow.")
@click.option("--grpc-address", default="", help="HOST:PORT of --url's gRPC, where that isn't what it says itself.")
@click.option("--data", type=click.Path(path_type=Path), help="Rows to send: .npz, .parquet, .csv or .json.")
@click.option("--traffic", type=click.Path(path_type=Path), help="Replay what a service recorded in this folder.")
@click.option("--trace", type=click.Path(path_type=Path), help="Replay the times of a .csv: time in seconds, rows.")
@click.option("--duration", type=click.FloatRange(min=1), help="Seconds. [default: 20, or all of a recording]")
@click.option("--seed", type=int, help="Of the arrival times. [default: 0]")
@click.option("--p50", help="Limit of the median latency, such as 20ms.")
@click.option("--p95", help="Limit of the 95th percentile.")
@click.option("--p99", help="Limit of the 99th percentile.")
@click.option("--max-errors", "--errors", help="Share of requests that may fail. [default: 1%]")
@_max_late
@click.option("--baseline", type=click.Path(path_type=Path), help="A load.json: repeat its load and compare with it.")
@click.option("--tolerance", default="10%", show_default=True, help="How much worse than the baseline is allowed.")
def load(model: str, url: str | None, api_key: str, ca: Path | None, out: Path | None, **given: Any) -> None:
    """Load-test a MODEL with Locust: open loop, Poisson arrivals.

    Writes load.json, load.html and a plot. Exits with status 3 when a limit is missed, or a figure is worse than the
    baseline's by more than the tolerance, beyond doubt; with 4 when the run is too short to tell; with 1 when it is
    void: the generator was too busy, or an answer wrong.
    """
    from hone.benchmarks.load.limits import require_met
    from hone.benchmarks.load.run import bench as run_bench
    from hone.benchmarks.load.run import find_target
    from hone.services.launch import free_port, served

    scenario, options = _load_options(given)
    with served(url, model, grpc_port=free_port() if options.wire == "grpc" else None) as (base, _):
        target = find_target(base, model, _access(api_key, ca, given["grpc_address"]))
        scenario, options = _recorded(target, scenario, options, given)
        folder = out or Path("out") / target.name
        report = run_bench(target, out=folder, scenario=scenario, progress=_say, options=options)
    click.echo(report.summary())
    if report.interrupted:
        raise KeyboardInterrupt
    for check in report.checks:
        click.echo(f"{check.decision}: {check.words}")
    require_met(report)


def _load_options(given: dict[str, Any]) -> tuple[Scenario, Options]:
    """Return what the options of `hone bench` ask for, as far as it can be known before the service answers."""
    from hone.benchmarks.load.limits import Limits, parse_ms, parse_share
    from hone.benchmarks.load.run import Options
    from hone.benchmarks.load.wire import wire
    from hone.benchmarks.scenarios import Scenario, parse_arrival

    percentiles = {f"{name}_ms": parse_ms(given[name]) for name in ("p50", "p95", "p99") if given[name]}
    before = _baseline(given["baseline"], given["tolerance"])
    scenario = Scenario.from_options(
        **{name: given[name] for name in ("rate", "users", "rows", "sizes", "seed")},
        duration_s=given["duration"],
        arrival=parse_arrival(given["arrivals"]) if given["arrivals"] else None,
        like=before.report.scenario if before else None,
    )
    options = Options(
        rows=given["data"],
        limits=Limits(percentiles, parse_share(given["max_errors"]) if given["max_errors"] else None),
        baseline=before,
        most_late=parse_share(given["max_late"]),
        wire=wire(given["protocol"]).name,
    )
    return scenario, options


def _recorded(target: Target, scenario: Scenario, options: Options, given: dict[str, Any]) -> tuple[Scenario, Options]:
    """Return the scenario and the options of --traffic and --trace, where one is given."""
    from hone.benchmarks.load.traffic import replayed

    return replayed(target, scenario, options, **{name: given[name] for name in ("traffic", "trace", "duration")})


def _baseline(file: Path | None, tolerance: str) -> Baseline | None:
    from hone.benchmarks.load.limits import Baseline, parse_share
    from hone.benchmarks.records import read_load_report

    return Baseline(read_load_report(file), parse_share(tolerance, most=100)) if file else None


def _say(line: str) -> None:
    click.echo(line, err=True)
