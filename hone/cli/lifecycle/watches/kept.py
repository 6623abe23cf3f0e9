"""Options of commands that judge versions by the answers that services keep, and what became known of them."""

from __future__ import annotations

from pathlib import Path

import click

record_key_option = click.option(
    "--key",
    "record_key",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="HONE_RECORD_KEY_FILE",
    help="That the folder is encrypted with. [default: $HONE_RECORD_KEY_FILE]",
)
output_option = click.option("--output", default="", help="Of the model, that labels are about. [default: the first]")
