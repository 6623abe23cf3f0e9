"""`hone init`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where to write it. [default: recipe.yaml beside MODEL]")
@click.option("--name", help="The model's name in the store. [default: the file's name]")
@click.option(
    "--evaluation",
    type=click.Path(path_type=Path),
    help="An .npz or .parquet file of evaluation rows: the recipe gets a budget that so many rows can prove.",
)
def init(model: Path, out: Path | None, name: str | None, evaluation: Path | None) -> None:
    """Write a commented recipe for a MODEL file."""
    from hone.converters.recipes.init import write_recipe

    written = write_recipe(model, out, name=name, evaluation=evaluation)
    if written.data is None:
        click.echo(f"wrote {written.recipe}; fill in what is marked TODO, then: hone optimize {written.recipe}")
        return
    data = f"kept {written.data}" if written.kept_data else f"wrote {written.data}"
    click.echo(
        f"wrote {written.recipe}, {data}; fill in what is marked TODO in both, then: hone optimize {written.recipe}"
    )
