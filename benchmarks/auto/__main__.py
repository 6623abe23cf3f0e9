"""`variants: auto` beside the examples' own recipes: `python -m benchmarks.auto`.

Each example is optimized twice, by its recipe as it is and with `variants: auto` in it, each in a fresh process with an
empty cache of passes. Then both winners are measured side by side in a third run, in the same rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import orjson

from hone.errors import HoneError, one_line
from hone.files import atomic_write
from hone.hardware import cores, cpu_name

from ..converters.__main__ import EXAMPLES, ROOT
from ..made import made
from .runs import AUTO, HAND, beside, cold_run, compared

MOST = 1.5
"""Of the time of the recipe that was written by hand, what auto may take."""


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
@click.option(
    "--only", "--example", "names", multiple=True, type=click.Choice([e.name for e in EXAMPLES]), help="Default: all."
)
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True, help="Runs of each, in turns.")
@click.option("--minutes", type=click.FloatRange(0.1), help="Time limit of each run's proof. [default: none]")
def main(out: Path, names: Sequence[str], rounds: int, minutes: float | None) -> None:
    """Optimize the examples by their recipes and by `variants: auto`, in turns; write auto.json."""
    models, not_run = [], []
    for example in EXAMPLES:
        if names and example.name not in names:
            continue
        click.echo(f"{example.name}: {example.recipe}", err=True)
        try:
            models.append({"name": example.name, **measured(ROOT / example.recipe, rounds, minutes)})
            click.echo(line(models[-1]))
        except HoneError as error:
            not_run.append({"name": example.name, "error": one_line(error)})
            click.echo(f"  not run: {one_line(error)}", err=True)
    report = {
        "schema": 1, **made("benchmarks.auto"), "machine": f"{cpu_name()}, {cores()} cores", "most": MOST,
        "models": models, "not_run": not_run,
    }  # fmt: skip
    atomic_write(out / "auto.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))


def measured(recipe: Path, rounds: int, minutes: float | None) -> dict[str, Any]:
    """Return one example's entry: seconds of both ways, and their winners side by side.

    Raises:
        HoneError: a run failed, or has no winner.
    """
    with TemporaryDirectory(prefix="hone-auto-") as scratch:
        found: dict[str, list[dict[str, Any]]] = {HAND: [], AUTO: []}
        for number in range(rounds):
            for way in (HAND, AUTO) if number % 2 == 0 else (AUTO, HAND):
                click.echo(f"  {way}", err=True)
                found[way].append(cold_run(recipe, way, Path(scratch) / f"{way}-{number}", minutes))
        click.echo("  both winners", err=True)
        both = beside(recipe, {way: runs[-1]["report"] for way, runs in found.items()}, Path(scratch))
    return compared(found, both)


def line(entry: dict[str, Any]) -> str:
    """Return an entry in words."""
    hand, auto = entry[HAND], entry[AUTO]
    return (
        f"{entry['name']}: auto took {entry['seconds_ratio']:.2f} times as long ({auto['seconds']:.0f} and "
        f"{hand['seconds']:.0f} s; processors {entry['cpu_ratio']:.2f} times) and found {auto['winner']}, by hand "
        f"{hand['winner']}: its latency is {entry['latency_ratio']:.2f} of that ({entry['latency_ratio_low']:.2f} to "
        f"{entry['latency_ratio_high']:.2f}), its loss {auto['loss']:.4g} and {hand['loss']:.4g}"
    )


if __name__ == "__main__":
    main()
