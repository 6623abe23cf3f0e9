"""`hone bench compare`: two services in turns, or at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hone.cli.references import pinned
from hone.errors import LimitError

if TYPE_CHECKING:
    from hone.benchmarks.load.target import Access, Target

TURNS, DURATION_S, USERS, MINUTES = 20, 3.0, 8, 5.0


@click.command()
@click.argument("a", callback=pinned)
@click.argument("b", callback=pinned)
@click.option("--model", default="", help="Of services that are given by their address. [default: the first]")
@click.option("--api-key", envvar="HONE_BENCH_KEY", default="", help="Better: $HONE_BENCH_KEY.")
@click.option("--ca", type=click.Path(path_type=Path, exists=True), help="Certificates to check their own with.")
@click.option("--turns", type=click.IntRange(1), help=f"Each loads A, B and A again. [default: {TURNS}]")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Poisson arrivals at this rate instead.")
@click.option("--users", type=click.IntRange(1), help=f"Closed loop with this many callers. [default: {USERS}]")
@click.option("--rows", type=click.IntRange(1), default=1, show_default=True, help="Rows in each request.")
@click.option(
    "--duration", type=click.FloatRange(min=1), help=f"Seconds of one load in a turn. [default: {DURATION_S:g}]"
)
@click.option(
    "--by",
    type=click.Choice(["p50", "p95", "p99", "rate", "cpu"]),
    help="For the verdict; cpu is the service's own work for a request, on this host. [default: p50]",
)
@click.option("--at-once", is_flag=True, help="Load both at the same time, and compare by cpu: finds 5 % in minutes.")
@click.option(
    "--minutes", type=click.FloatRange(0.2), help=f"With --at-once: the most that it takes. [default: {MINUTES:g}]"
)
@click.option("--out", type=click.Path(path_type=Path), help="[default: out/NAME/compare.json]")
def compare(a: str, b: str, at_once: bool, **given: Any) -> None:
    """Compare two services: A and B are stored models, or addresses of running services.

    Says whether B is faster, slower, or that it can't be told, and what difference would have been seen. Exits with
    status 3 when B is slower.
    """
    _require_together(at_once, given)
    (_at_once if at_once else _in_turns)(a, b, **given)


def _require_together(at_once: bool, given: dict[str, Any]) -> None:
    """Raise click.UsageError for options that are of the other way to compare."""
    if not at_once:
        if given["minutes"]:
            raise click.UsageError("--minutes is how long --at-once may take; turns take --turns and --duration")
        return
    for name in ("turns", "users", "duration"):
        if given[name] is not None:
            raise click.UsageError(f"--{name} is of turns; --at-once takes --minutes and --rate")
    if given["by"] not in (None, "cpu"):
        raise click.UsageError(f"--at-once compares by cpu, not by {given['by']}: services at once wait for each other")


def _in_turns(a: str, b: str, model: str, out: Path | None, api_key: str, ca: Path | None, **given: Any) -> None:
    from hone.benchmarks.compare.turns import StoppedError
    from hone.benchmarks.compare.turns import compare as run_compare
    from hone.benchmarks.load.target import Access
    from hone.benchmarks.scenarios import Scenario

    users = given["users"] or (None if given["rate"] else USERS)
    turns, seconds, by = given["turns"] or TURNS, given["duration"] or DURATION_S, given["by"] or "p50"
    wanted = Scenario.from_options(rate=given["rate"], users=users, rows=given["rows"], duration_s=seconds)
    access = Access(api_key, ca)
    with _target(a, model, access) as first, _target(b, model, access) as second:
        file = out or Path("out") / first.name / "compare.json"
        figure = {"rate": "s_per_request"}.get(by, f"{by}_ms")
        command = f"hone bench compare {a} {b} --turns {turns} --duration {seconds:g}"
        found = run_compare(first, second, wanted, out=file, turns=turns, by=figure, command=command, progress=_say)
    click.echo(found.summary())
    click.echo(f"comparison: {file}")
    if found.interrupted:
        raise StoppedError(f"interrupted after {len(found.turns)} turns; {file} has them")
    if found.ratio.verdict == "slower":
        raise LimitError(f"B is slower: {by} of {found.b.model}")


def _at_once(a: str, b: str, model: str, out: Path | None, api_key: str, ca: Path | None, **given: Any) -> None:
    from hone.benchmarks.compare.turns import StoppedError
    from hone.benchmarks.compare.verdict import Effort, compare_at_once
    from hone.benchmarks.load.target import Access

    minutes, access = given["minutes"] or MINUTES, Access(api_key, ca)

    @contextmanager
    def start(number: int) -> Iterator[tuple[Target, Target]]:
        if number % 2:  # who starts first changes, too
            with _target(b, model, access) as second, _target(a, model, access) as first:
                yield first, second
        else:
            with _target(a, model, access) as first, _target(b, model, access) as second:
                yield first, second

    effort = Effort(minutes, given["rows"], given["rate"], anew="://" not in a + b)
    command = f"hone bench compare {a} {b} --at-once --minutes {minutes:g}"
    found, file = compare_at_once(start, effort, out=out, command=command, progress=_say)
    click.echo(found.summary())
    click.echo(f"comparison: {file}")
    if found.interrupted:
        raise StoppedError(f"interrupted after {len(found.rounds)} rounds; {file} has them")
    if found.verdict == "slower":
        raise LimitError(f"B is slower: cpu of {found.b.model}")


@contextmanager
def _target(reference: str, model: str, access: Access) -> Iterator[Target]:
    """Yield a model of the service at an address, or of one that is started for it and stopped afterwards."""
    from hone.benchmarks.load.run import find_target
    from hone.services.launch import served

    url = reference if "://" in reference else None
    wanted = model if url else reference
    with served(url, wanted) as (base, _):
        yield find_target(base, wanted, access)


def _say(line: str) -> None:
    click.echo(line, err=True)
