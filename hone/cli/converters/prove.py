"""`hone prove`."""

from __future__ import annotations

import sys

import click

from hone.errors import GoldenError, LimitError, UndecidedError


@click.command()
@click.argument("model")
@click.option(
    "--with",
    "requirement",
    metavar="PACKAGE==VERSION",
    help="Another version of its runtime, such as onnxruntime==1.22.0.",
)
@click.option(
    "--tolerance", type=click.FloatRange(0), default=0.1, show_default=True, help="Share by which it may be slower."
)
@click.option("--turns", type=click.IntRange(6), default=20, show_default=True, help="In which times are taken.")
def prove(model: str, requirement: str | None, tolerance: float, turns: int) -> None:
    """Prove a stored MODEL again: its answers and its speed, here or with another version of its runtime.

    The other version gets an environment of its own in Hone's cache, and takes turns with the installed one. Exit
    status: 3 when answers differ from the golden rows' or it is slower than --tolerance, 4 when the turns don't tell.
    """
    from hone import store
    from hone.converters.proof.again import prove_again

    entry = store.choose(store.serving_set(model)).entry
    draws = sys.stderr.isatty()

    def progress(text: str) -> None:
        if draws:
            click.echo(f"\r\033[K{text}", err=True, nl=False)

    found = prove_again(entry, requirement, turns, progress)
    progress("")
    click.echo(f"{entry.tag} with {found.runtime}")
    same = f"differ: {'; '.join(found.problems)}" if found.problems else f"match {found.checked}"
    click.echo(f"answers  {same} ({found.rows} rows)" if found.checked else "answers  not compared: no golden rows")
    if found.ratio is None:
        click.echo(f"speed    not compared: {found.note}")
    else:
        disturbed = "; the turns were disturbed" if found.disturbed else ""
        interval = f"{found.low:.3f} to {found.high:.3f}{disturbed}"
        click.echo(f"speed    {found.ratio:.3f} times the time of {found.against} ({interval})")
    if found.problems:
        raise GoldenError(f"{entry.tag} gives other answers with {found.runtime}: {'; '.join(found.problems)}")
    speed = found.speed(tolerance)
    if speed == "slower":
        raise LimitError(
            f"{entry.tag} is slower with {found.runtime}: {found.ratio:.3f} times, at most {1 + tolerance:g}"
        )
    if speed == "undecided":
        raise UndecidedError(
            f"{TOLD}: {found.low:.3f} to {found.high:.3f} times, at most {1 + tolerance:g}; give more --turns"
        )


TOLD = "whether it is slower than the tolerance can't be told"
