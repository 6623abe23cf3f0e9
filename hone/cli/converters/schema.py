"""`hone schema`."""

from __future__ import annotations

from pathlib import Path

import click

from hone.cli.printing import print_or_write


@click.command()
@click.option("--out", type=click.Path(path_type=Path), help="Write to a file instead of standard output.")
@click.option("--markdown", is_flag=True, help="The reference for people instead.")
def schema(out: Path | None, markdown: bool) -> None:
    """Print the JSON Schema of recipes, for editors."""
    from hone.converters.recipes.reference import recipe_reference
    from hone.converters.recipes.schema import recipe_schema

    print_or_write(recipe_reference() if markdown else recipe_schema(), out)
