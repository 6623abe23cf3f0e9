"""`hone init`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where to write it. [default: recipe.yaml beside MODEL]")
@click.option("--name", help="The model's name in the store. [default: the file's name]")
def init(model: Path, out: Path | None, name: str | None) -> None:
    """Write a commented recipe for a MODEL file."""
    from hone.converters.recipes.init import write_recipe

    written = write_recipe(model, out, name=name)
    data = f"kept {written.data}" if written.kept_data else f"wrote {written.data}"
    click.echo(
        f"wrote {written.recipe}, {data}; fill in what is marked TODO in both, then: hone optimize {written.recipe}"
    )
