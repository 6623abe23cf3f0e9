"""The command that simulates an autoscaler: `hone k8s simulate`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hone.k8s.autoscaler.pod import Pod
    from hone.k8s.autoscaler.simulate import Setting
    from hone.k8s.autoscaler.trace import Trace

FILE = click.Path(path_type=Path)
ABOVE_0 = click.FloatRange(min=0, min_open=True)
SECONDS = click.FloatRange(min=1, max=86400)


@click.command()
@click.option("--capacity", type=FILE, help="Of hone bench capacity: what a pod holds.")
@click.option(
    "--pod", "pod_file", type=FILE, help='JSON in its place: {"capacity_rps", "latency_s", "cpu_cores", "start_s"}.'
)
@click.option(
    "--trace", required=True, metavar="FILE|SHAPE", help="CSV of t,rate, or constant, step, ramp, burst, day."
)
@click.option("--rate", type=ABOVE_0, help="Lowest rate of a shape. [default: what minReplicas hold on target]")
@click.option(
    "--peak", type=ABOVE_0, help="Highest rate: of a shape [default: 5 x the lowest], and for maxReplicas as in render."
)
@click.option("--autoscaler", "autoscaler_file", type=FILE, help="YAML. [default: what hone k8s render writes]")
@click.option("--component", "components", multiple=True, help="As in hone k8s render: in-flight-hpa, keda.")
@click.option("--kubernetes", default="1.35", show_default=True, metavar="RELEASE", help="Whose controller to follow.")
@click.option(
    "--sync", type=SECONDS, default=15, show_default=True, help="Seconds between two of the controller's turns."
)
@click.option("--scrape", type=SECONDS, default=15, show_default=True, help="Seconds between two scrapes.")
@click.option("--window", type=SECONDS, default=60, show_default=True, help="Seconds of the rate of rows in flight.")
@click.option("--replicas", type=click.IntRange(min=1), help="At first. [default: what the first rate needs]")
@click.option("--cpu-hour", type=click.FloatRange(min=0), default=0.0, help="Price of a core for an hour.")
@click.option("--gb-hour", type=click.FloatRange(min=0), default=0.0, help="Price of a GB of memory for an hour.")
@click.option("--budget", type=click.FloatRange(min=0), help="Search settings with so few minutes outside the SLO.")
@click.option("--write", type=FILE, help="YAML of the autoscaler that was found, for hone k8s render --autoscaler.")
@click.option("--out", type=FILE, help="JSON of every step; a picture is written beside it.")
def simulate(**options: Any) -> None:
    """Simulate pods under a load and their autoscaler: minutes outside the SLO, pod-hours, cost.

    The arithmetic is the controller's own. With --budget target, minimum, windows and policies are searched.
    """
    from dataclasses import replace

    from hone.files import atomic_write
    from hone.k8s.autoscaler.hpa.spec import parse_autoscaler
    from hone.k8s.autoscaler.report import check_out, pod_hour, summary, to_record, write_run
    from hone.k8s.autoscaler.search import search, to_yaml
    from hone.k8s.autoscaler.simulate import simulate as run_trace
    from hone.k8s.prices import Price

    if options["write"] and options["budget"] is None:
        raise click.UsageError("--write is what --budget finds; give --budget")
    if options["out"]:
        check_out(options["out"])
    setting, item, memory = _setting(options)
    cost_hour = pod_hour(Price(options["cpu_hour"], options["gb_hour"]), setting.pod, memory)
    trace = _trace(options, setting)
    if options["budget"] is None:
        run = run_trace(setting, trace)
    else:
        found = search(setting, item, trace, options["budget"], _tell)
        item, run = found.item, found.run
        setting = replace(setting, autoscaler=parse_autoscaler(item, "the search"))
        click.echo(f"{found.tried} settings tried; {_described(item)}")
    if options["out"]:
        record = to_record(run, setting, item, options["trace"], cost_hour)
        picture = write_run(options["out"], record, run, setting.pod)
    if options["write"]:
        atomic_write(options["write"], to_yaml(found, f"hone k8s simulate --trace {options['trace']}"))
    click.echo(summary(run, setting, trace, cost_hour))
    if options["out"]:
        click.echo(f"wrote {options['out']} and {picture}")
    if options["write"]:
        click.echo(f"wrote {options['write']}; next: hone k8s render … --autoscaler {options['write']}")


def _setting(options: dict[str, Any]) -> tuple[Setting, dict[str, Any], int | None]:
    """Return what to simulate, the autoscaler as an object, and the memory of a pod in MiB where it is known."""
    from hone.capacity import read_capacity
    from hone.errors import HoneError
    from hone.k8s.autoscaler.hpa.flags import Flags, parse_release
    from hone.k8s.autoscaler.hpa.spec import parse_autoscaler, read_autoscaler
    from hone.k8s.autoscaler.pod import pod_of, read_pod
    from hone.k8s.autoscaler.sight import Scraping, check_metrics
    from hone.k8s.autoscaler.simulate import Setting
    from hone.k8s.numbers import autoscaler_of, numbers_of

    file, numbers = options["capacity"], None
    if (file is None) == (options["pod_file"] is None):
        raise click.UsageError("give --capacity or --pod: one of them says what a pod holds")
    if set(options["components"]) & {"memory-hpa", "scheduled-peaks"}:
        raise HoneError("--component: what memory-hpa and scheduled-peaks do is not simulated; leave them out here")
    if unknown := set(options["components"]) - {"in-flight-hpa", "keda"}:
        raise HoneError(f"--component: '{sorted(unknown)[0]}' doesn't change the autoscaler; in-flight-hpa and keda do")
    if file is not None:
        capacity = read_capacity(file)
        pod, numbers = pod_of(capacity, file), numbers_of(capacity, capacity.model, file, options["peak"])
    else:
        pod = read_pod(options["pod_file"])
    if options["window"] < 2 * options["scrape"]:
        raise HoneError("--window: a rate needs two scrapes; give at least twice --scrape")
    release = parse_release(options["kubernetes"])
    given = options["autoscaler_file"]
    item = read_autoscaler(given) if given else autoscaler_of(numbers, options["components"], None)
    autoscaler = parse_autoscaler(item, str(given or "k8s/base/hpa.yaml"))
    check_metrics(autoscaler, str(given or "k8s/base/hpa.yaml"))
    flags = Flags(sync_s=options["sync"], release=release)
    scraping = Scraping(options["scrape"], options["scrape"] / 2, options["window"])
    setting = Setting(pod, autoscaler, flags, scraping, options["replicas"])
    return setting, item, numbers.memory_mib if numbers else None


def _trace(options: dict[str, Any], setting: Setting) -> Trace:
    from hone.errors import HoneError
    from hone.k8s.autoscaler.simulate import held_on_target
    from hone.k8s.autoscaler.trace import read_trace, shape

    name = options["trace"]
    if Path(name).suffix or Path(name).exists():
        if options["rate"]:
            raise HoneError("--rate: is of a shape; a file has rates of its own")
        return read_trace(Path(name))
    pod: Pod = setting.pod
    on_target = min(pod.capacity_rps, *(held_on_target(pod, metric) for metric in setting.autoscaler.metrics))
    lowest = options["rate"] or max(setting.autoscaler.minimum, 1) * on_target
    return shape(name, lowest, options["peak"] or 5 * lowest)


def _tell(number: int) -> None:
    if sys.stderr.isatty():
        click.echo(f"\r{number} settings tried", err=True, nl=False)


def _described(item: dict[str, Any]) -> str:
    spec = item["spec"]
    targets = []
    for metric in spec["metrics"]:
        kind = metric["type"]
        target = metric[kind[0].lower() + kind[1:]]["target"]
        targets.append(str(target.get("averageUtilization", target.get("averageValue"))))
    up = spec["behavior"]["scaleUp"]["policies"][0]
    return (
        f"targets {', '.join(targets)}, minReplicas {spec['minReplicas']}, {up['value']} % in {up['periodSeconds']} s "
        f"upward, {spec['behavior']['scaleDown']['stabilizationWindowSeconds']} s of stabilization downward"
    )
