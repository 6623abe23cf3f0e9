"""All benchmarks on one page: `make bench-report`, or `python -m benchmarks.overview`.

Runs the benchmarks that have no record in `--out` yet, and puts together what the records say: `benchmarks.html`, `.md`
and `.json`. One that fails, or whose tools are missing, is named with its reason and stops none of the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from hone.errors import HoneError
from hone.files import atomic_write, check_writable

from . import drawing
from .gather import gather, section
from .records import read_overview
from .running import run
from .sections import BENCHMARKS, NAMES

ROOT = Path(__file__).resolve().parents[2]
KEPT, README = ROOT / "docs" / "benchmarks.json", ROOT / "README.md"
INTERRUPTED = 130


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True, help="Of records."
)
@click.option("--only", "names", multiple=True, type=click.Choice(NAMES), help="Run only this one. Default: all.")
@click.option("--again", is_flag=True, help="Run also those that have a record.")
@click.option("--no-run", is_flag=True, help="Run none: put together what there is.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="A try: about so long for each, fewer peers.")
@click.option("--keep", is_flag=True, help="Keep the result as docs/benchmarks.json, and rewrite README.md from it.")
@click.option("--readme", is_flag=True, help="Only rewrite README.md from docs/benchmarks.json.")
def main(
    out: Path, names: Sequence[str], again: bool, no_run: bool, minutes: float | None, keep: bool, readme: bool
) -> None:
    """Run the benchmarks that have no record, and draw one page of all of them."""
    try:
        if readme:
            _rewrite()
            return
        check_writable(out, "benchmarks.json (--out)")
        chosen = () if no_run else names or NAMES
        problems, interrupted = _run(chosen, out, again, minutes)
        overview = gather(out, problems)
        drawing.write(overview, out)
        if keep and not interrupted:
            atomic_write(KEPT, drawing.to_json(overview))
            _rewrite()
    except HoneError as error:
        raise click.ClickException(str(error)) from error
    click.echo(drawing.to_markdown(overview) + f"\npage: {out / 'benchmarks.html'}")
    if interrupted:
        click.echo("interrupted; the same command goes on with what has no record yet", err=True)
        raise click.exceptions.Exit(INTERRUPTED)


def _run(chosen: Sequence[str], out: Path, again: bool, minutes: float | None) -> tuple[dict[str, str], bool]:
    """Return why benchmarks failed, by name, and whether Ctrl-C ended the run."""
    problems: dict[str, str] = {}
    for benchmark in BENCHMARKS:
        if benchmark.name not in chosen:
            continue
        if not again and section(benchmark, out, "").status == "measured":
            continue
        click.echo(f"{benchmark.title}: {benchmark.name}", err=True)
        try:
            problem = run(benchmark, out, minutes, lambda line: click.echo(f"  {line}", err=True))
        except KeyboardInterrupt:
            return problems, True
        if problem:
            problems[benchmark.name] = problem
    return problems, False


def _rewrite() -> None:
    atomic_write(README, drawing.with_block(README.read_text(), read_overview(KEPT)))


if __name__ == "__main__":
    main()
