"""The throughput that sketches and notes of traffic cost: `make bench-keeping`, or `python -m benchmarks.keeping`.

Services of one artifact by one plan are up at once, stopped but for the one that wrk loads, and take turns: as it is by
default, twice, and with each thing kept. Ratios are of the same turn, so what disturbs a machine for longer than a turn
disturbs both; the second one of the default says how well that works. Processor time a request is of the service's
processes: other programs on the machine hardly change it.
"""

from __future__ import annotations

import random
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson

from hone.errors import HoneError
from hone.evidence.turns import Paired, against_itself, against_other
from hone.files import atomic_write
from hone.services.launch import running

from ..load.run import find_target
from ..load.target import Access
from ..made import made
from ..peers.payloads import call
from ..serving import wrk
from ..serving.servers import Standing, standing
from ..usage import listeners, worked_s
from .model import NAME, rows, store_small_model

AIM = 0.02
"""Share of throughput that sketches and notes may cost."""
OFF, AGAIN = "nothing", "nothing, again"
KEEPS: dict[str, tuple[str, ...]] = {
    OFF: (),
    AGAIN: (),
    "sketches": ("drift_dir",),
    "notes of answers": ("feedback_dir",),
    "sketches and notes": ("drift_dir", "feedback_dir"),
    "1 % recorded": ("record_dir",),
    "all of these": ("drift_dir", "feedback_dir", "record_dir"),
}
"""The settings of folders that are given, by what is kept then."""


@click.command()
@click.option("--turns", type=click.IntRange(2), default=12, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=4.0, show_default=True, help="Of each measurement.")
@click.option("--connections", type=click.IntRange(1), default=32, show_default=True)
@click.option("--rows", "count", type=click.IntRange(1), default=1, show_default=True, help="In each request.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
def main(turns: int, seconds: float, connections: int, count: int, out: Path) -> None:
    """Measure what is lost; write keeping.json and keeping.md."""
    try:
        wrk.require()
        with tempfile.TemporaryDirectory(prefix="hone-keeping-") as folder:
            measured = measure(Path(folder), turns, Load(seconds, connections, count))
    except HoneError as error:
        raise click.ClickException(str(error)) from error
    report = {
        "schema": 1, "kind": "keeping", **made("benchmarks.keeping"), "turns": turns, "seconds": seconds,
        "connections": connections, "rows": count, "aim": AIM, "sides": sides_of(measured), "measured": measured,
    }  # fmt: skip
    atomic_write(out / "keeping.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    atomic_write(out / "keeping.md", text := to_markdown(report))
    click.echo(text)


@dataclass(frozen=True)
class Load:
    """What wrk sends: for so many seconds, over so many connections, so many rows in each request."""

    seconds: float
    connections: int
    rows: int


Measured = dict[str, list[dict[str, float]]]
"""`rps` and `cpu_us` of each turn, by what is kept."""


def measure(folder: Path, turns: int, load: Load) -> Measured:
    """Return what each side reached in each turn.

    Raises:
        HoneError: a service doesn't start or ends, or wrk fails.
    """
    tag = store_small_model(folder)
    with running(tag, workers=1, threads=1) as url:
        plan = find_target(url, tag, Access()).plan
    if plan is None:
        raise HoneError(f"{tag}: the service doesn't tell its plan")
    found: Measured = {name: [] for name in KEEPS}
    order, dice = list(KEEPS), random.Random(0)
    with ExitStack() as stack:
        up: dict[str, Standing] = {}
        for place, (name, settings) in enumerate(KEEPS.items()):
            click.echo(f"starting: {name}", err=True)
            given: dict[str, Any] = {one: str(folder / f"{place}-{one}") for one in settings}
            if "record_dir" in settings:
                given["record_sample"] = 0.01
            service = running(tag, workers=1, plan=plan.model_dump_json(), **given)
            up[name] = stack.enter_context(standing(name, service))
        for turn in range(turns):
            dice.shuffle(order)
            for name in order:
                found[name].append(_measured(up[name], load))
            click.echo(f"turn {turn + 1} of {turns}: {found[OFF][-1]['rps']:,.0f} requests/s", err=True)
    return found


def _measured(server: Standing, load: Load) -> dict[str, float]:
    request = call("hone", NAME, {"x": rows(load.rows)}, f"binary-{load.rows}")
    assert request is not None
    with server.awake():
        processes = listeners(server.url)
        wrk.load(server.url, [request[0]], load.connections, 1)
        before = worked_s(processes)
        run = wrk.load(server.url, [request[0]], load.connections, load.seconds)
        worked = worked_s(processes) - before
    if run.errors or not run.requests:
        raise HoneError(f"{server.name}: {run.errors} of {run.requests} requests failed")
    return {"rps": run.rps, "cpu_us": worked / run.requests * 1e6}


def sides_of(measured: Measured) -> list[dict[str, Any]]:
    """Return what each side costs beside the one that keeps nothing, as shares of time and of processor time."""
    found = []
    for name, runs in measured.items():
        one: dict[str, Any] = {"keeps": name}
        for figure in ("rps", "cpu_us"):
            values = {side: [run[figure] for run in measured[side]] for side in (OFF, AGAIN, name)}
            one[figure] = sorted(values[name])[len(runs) // 2]
            if name != OFF:
                one[f"{figure}_cost"] = _cost(values, name, inverse=figure == "rps")
        found.append(one)
    return found


def _cost(values: dict[str, list[float]], name: str, *, inverse: bool) -> dict[str, float]:
    """Return by which share a figure is worse, with the bounds of that."""
    took = {side: [1 / one if inverse else one for one in some] for side, some in values.items()}
    first, again, other = took[OFF], took[AGAIN], took[name]
    found: Paired = against_itself(first, again) if name == AGAIN else against_other(first, again, other)
    return {"cost": found.ratio - 1, "low": found.low - 1, "high": found.high - 1, "smallest": found.smallest}


def to_markdown(report: dict[str, Any]) -> str:
    """Return a line for each side."""
    lines = [
        "# What keeping something of traffic costs",
        "",
        f"{report['turns']} turns of {report['seconds']:g} s, wrk with {report['connections']} connections, "
        f"{report['rows']} row(s) of 50 features a request. {report['host']['cpu']}, {report['host']['cores']} cores. "
        f"Bounds at 99 %; the aim for sketches and notes is under {report['aim']:.0%}.",
        "",
        "| kept | requests/s | more time a request | CPU us a request | more CPU | aim |",
        "|---|---|---|---|---|---|",
    ]
    for one in report["sides"]:
        time, cpu = (_words(one.get(f"{figure}_cost")) for figure in ("rps", "cpu_us"))
        aim = _judged(one["rps_cost"], report["aim"]) if one["keeps"] == "sketches and notes" else ""
        lines.append(f"| {one['keeps']} | {one['rps']:,.0f} | {time} | {one['cpu_us']:.1f} | {cpu} | {aim} |")
    return "\n".join(lines) + "\n"


def _words(cost: dict[str, float] | None) -> str:
    return "" if cost is None else f"{cost['cost']:+.1%} ({cost['low']:+.1%} to {cost['high']:+.1%})"


def _judged(cost: dict[str, float], aim: float) -> str:
    """Return whether a cost is below the aim, by its bounds."""
    if cost["high"] < aim:
        return "met"
    return "missed" if cost["low"] > aim else "undecided"


if __name__ == "__main__":
    main()
