"""Does a service at several times its capacity go on: `make bench-overload`, or `python -m benchmarks.overload`.

It is started here, its capacity is searched for a while or given, and then requests come at a multiple of it, each with
a deadline. What is answered in time, what refusals take and how long `/readyz` takes are judged; exit status 3 when an
aim is missed. The generator needs processor time of its own, so the service is kept to some of the cores and what loads
it to the others, and the model by default is one that is slow on purpose: of a small one, two cores can't send three
times what they can answer.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import orjson

from hone.capacity import Slo, Trial
from hone.errors import HoneError
from hone.files import atomic_write
from hone.services.launch import running

from ..capacity.runs import Runs, Void
from ..capacity.search import Effort, Found, limited_by, search
from ..capacity.service import Service
from ..load.run import find_target
from ..load.target import Access, Target
from ..made import made
from .cores import kept_to, shared_out
from .judge import judge
from .model import store_slow_model
from .sending import Load, overload

MISSED = 3
MOST_LATE = 0.5
"""Share of a search's requests that may start over a millisecond late: latencies count from when they should have, and
the deadline is many milliseconds, so late ones make the capacity a little smaller than it is, and no more."""


@click.command()
@click.option("--model", help="A stored one. [default: one that is made for this and slow on purpose]")
@click.option("--rows", type=click.IntRange(1), default=4, show_default=True, help="In each request.")
@click.option("--capacity", type=click.FloatRange(0, min_open=True), help="Requests/s. [default: searched]")
@click.option("--times", type=click.FloatRange(1), default=3.0, show_default=True, help="The capacity, that is sent.")
@click.option("--deadline-ms", type=click.FloatRange(1), default=50.0, show_default=True, help="Of each request.")
@click.option("--minutes", type=click.FloatRange(0.02), default=10.0, show_default=True, help="Of the overload.")
@click.option("--search-minutes", type=click.FloatRange(0.1), default=2.0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
def main(
    model: str | None, rows: int, capacity: float | None, times: float, deadline_ms: float, minutes: float,
    search_minutes: float, out: Path,
) -> None:  # fmt: skip
    """Overload a service; write overload.json."""
    try:
        with tempfile.TemporaryDirectory(prefix="hone-overload-") as folder:
            reference = model or _slow_model(Path(folder))
            its, others = shared_out()
            with ExitStack() as started:
                threads = None if its != others else max(1, len(its) - 1)
                with kept_to(its):
                    url = started.enter_context(running(reference, threads=threads))
                with kept_to(others):
                    target = find_target(url, reference, Access())
                    found = capacity or _search(target, rows, deadline_ms, search_minutes)
                    load = Load(times * found, rows, deadline_ms, minutes * 60)
                    click.echo(f"{found:,.1f} requests/s held; {load.rate:,.1f}/s for {load.seconds:g} s", err=True)
                    figures = judge(overload(target, load), load, found)
    except HoneError as error:
        raise click.ClickException(str(error)) from error
    facts = _facts(target, load, found, "given" if capacity else "searched")
    figures = {**facts, "service_cores": len(its), **figures}
    lines = figures.pop("lines")
    atomic_write(out / "overload.json", orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    click.echo("\n".join([*lines, f"{figures['verdict']}: {out / 'overload.json'}"]))
    if figures["verdict"] != "met":
        sys.exit(MISSED)


def _slow_model(folder: Path) -> str:
    """Make the model in a store of its own: nobody else's store gets it."""
    (folder / "home" / "models").mkdir(parents=True)
    os.environ["BENTOML_HOME"] = str(folder / "home")
    return store_slow_model(folder / "model").tag


def _search(target: Target, rows: int, deadline_ms: float, minutes: float) -> float:
    """Return the rate at which 99 % of the answers take no longer than the deadline."""
    runs = Runs(Service(target, rows, MOST_LATE), Slo(limit_ms=deadline_ms))
    runs.on_run = lambda run, _: click.echo(_words(run), err=True)
    return rate_of(search(runs, Effort(duration_s=4.0, repeats=1, budget_s=minutes * 60)), target.tag, deadline_ms)


def rate_of(found: Found, tag: str, deadline_ms: float) -> float:
    """Return the capacity that a search found.

    Raises:
        HoneError: there is none, or where it ended is what the generator can do: a multiple of that is no overload.
    """
    if (void := found.void) and limited_by(found) == "generator":
        raise HoneError(
            f"the load generator was the limit: at {void.rate:,.1f} requests/s {void.void}; let the machine do less "
            "beside it, or say what the service holds: --capacity"
        )
    if not found.rate:
        raise HoneError(f"{tag} misses {deadline_ms:g} ms at any load; give more --deadline-ms")
    return found.rate


def _words(run: Trial | Void) -> str:
    what = run.void if isinstance(run, Void) else f"p99 {run.p99_ms:.1f} ms, {run.verdict}"
    return f"{run.rate:,.1f}/s: {what}"


def _facts(target: Target, load: Load, capacity: float, source: str) -> dict[str, Any]:
    return {
        "schema": 1,
        "kind": "overload",
        **made("benchmarks.overload"),
        "model": target.tag,
        "plan": None if target.plan is None else target.plan.describe(),
        "rows": load.rows,
        "deadline_ms": load.deadline_ms,
        "seconds": load.seconds,
        "capacity_rps": round(capacity, 1),
        "capacity_from": source,
        "sent_rps": round(load.rate, 1),
    }


if __name__ == "__main__":
    main()
