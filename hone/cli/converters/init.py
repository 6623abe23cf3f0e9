"""`hone init`."""

from __future__ import annotations

from pathlib import Path

import click

from hone.cli.first_recipe import asked_for


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where to write it. [default: recipe.yaml beside MODEL]")
@click.option("--name", help="The model's name in the store. [default: the file's name]")
@click.option(
    "--evaluation",
    type=click.Path(path_type=Path),
    help="An .npz, .csv or .parquet file of evaluation rows: the recipe gets a budget that so many rows can prove.",
)
@asked_for
def init(
    model: Path,
    out: Path | None,
    name: str | None,
    evaluation: Path | None,
    data: Path | None,
    labels: str | None,
    loss: str | None,
    p95_ms: float | None,
    size_mb: float | None,
) -> None:
    """Write a commented recipe for a MODEL file; with --data it is ready to run.

    `hone optimize MODEL --data FILE` writes the same recipe, and runs it.
    """
    from hone.cli.first_recipe import given
    from hone.converters.recipes.init import write_recipe

    written = write_recipe(model, out, name=name, given=given(evaluation, data, labels, loss, p95_ms, size_mb))
    for note in written.notes:
        click.echo(f"note: {note}", err=True)
    run = f"hone optimize {written.recipe}"
    if written.data is None and data is not None:
        click.echo(f"wrote {written.recipe}; run it: {run}")
        return
    if written.data is None:
        click.echo(f"wrote {written.recipe}; fill in what is marked TODO, then: {run}")
        return
    module = f"kept {written.data}" if written.kept_data else f"wrote {written.data}"
    click.echo(f"wrote {written.recipe}, {module}; fill in what is marked TODO in both, then: {run}")
