"""`hone score`."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hone.scoring.run import Spread

ENGINES = ("local", "ray", "spark")


@click.command()
@click.argument("model")
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUTPUT", type=click.Path(path_type=Path))
@click.option("--keep", metavar="COLUMN,…", help="Columns of the input that go into the output, such as a key.")
@click.option(
    "--columns", "given", metavar="INPUT=COLUMN,…", multiple=True, help="Where an input is, when no name says it."
)
@click.option("--skip-bad", metavar="FILE", type=click.Path(path_type=Path), help="Put rows that can't be used there.")
@click.option(
    "--every", type=click.FloatRange(0), default=10.0, show_default=True, help="Seconds after which a part is kept."
)
@click.option("--engine", type=click.Choice(ENGINES), default="local", show_default=True, help="Or more machines.")
@click.option("--workers", type=click.IntRange(1), help="Processes of an engine. Default: as its cores have room for.")
@click.option("--restart", is_flag=True, help="Throw away what a run before kept; don't go on from there.")
@click.option("--overwrite", is_flag=True, help="Replace the output of a run before.")
def score(
    model: str,
    source: Path,
    out: Path,
    keep: str | None,
    given: tuple[str, ...],
    skip_bad: Path | None,
    every: float,
    engine: str,
    workers: int | None,
    restart: bool,
    overwrite: bool,
) -> None:
    """Write the answers of a stored MODEL to the rows of INPUT to OUTPUT, a Parquet file.

    INPUT is a .parquet, .csv, .jsonl, .npz or .npy file, or a folder of .parquet files. Rows are answered as a service
    answers them, each once: a run that was stopped goes on where it was when the same command is given again.
    """
    from hone.scoring.run import Request, score

    request = Request(model, source, out, _names(keep), dict(map(_columns, given)), skip_bad, every, restart, overwrite)
    show = _Shown()
    result = score(request, show, _spread(engine, workers))
    show.end()
    aside = f", {result.skipped:,} put aside in {skip_bad}" if result.skipped else ""
    own = result.rows + result.skipped - result.resumed
    resumed = f" ({result.resumed:,} of them by a run before)" if result.resumed else ""
    rate = f"{own / max(result.seconds, 1e-9):,.0f} rows/s" if own else "nothing left to do"
    click.echo(f"{result.model}: {result.rows:,} rows{resumed}, {rate}{aside}: {out}")


def _spread(engine: str, workers: int | None) -> Spread | None:
    """Return what does the work; None: this process."""
    if engine == "ray":
        from hone.scoring.engines.ray import on_ray

        return on_ray(workers)
    if engine == "spark":
        from hone.scoring.engines.spark import on_spark

        return on_spark(workers)
    if workers:
        raise click.UsageError("--workers is for --engine ray and spark; HONE_THREADS and HONE_IN_FLIGHT are for local")
    return None


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(filter(None, (name.strip() for name in (text or "").split(","))))


def _columns(text: str) -> tuple[str, tuple[str, ...]]:
    name, equals, columns = text.partition("=")
    if not equals or not _names(columns):
        raise click.BadParameter(f"'{text}' is not INPUT=COLUMN,…", param_hint="--columns")
    return name.strip(), _names(columns)


class _Shown:
    """One line on a terminal; nothing where nobody watches."""

    LOOK_S = 0.2

    def __init__(self) -> None:
        self._draws = sys.stderr.isatty()
        self._since: tuple[float, int] | None = None
        self._last = 0.0

    def __call__(self, done: int, total: int | None, bad: int) -> None:
        now = time.monotonic()
        began, first = self._since = self._since or (now, done)
        if not self._draws or now - self._last < self.LOOK_S:
            return
        self._last = now
        rate = (done - first) / (now - began) if now > began else 0.0
        left = f", {(total - done) / rate:,.0f} s left" if total and rate else ""
        of = f" of {total:,} ({done / total:.0%})" if total else ""
        aside = f", {bad:,} put aside" if bad else ""
        click.echo(f"\r\033[K{done:,}{of} rows, {rate:,.0f} rows/s{left}{aside}", err=True, nl=False)

    def end(self) -> None:
        if self._draws:
            click.echo("\r\033[K", err=True, nl=False)
