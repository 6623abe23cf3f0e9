"""How commands print: tables in columns, and texts that may go to a file instead."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows of equal length as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def print_or_write(text: str, file: Path | None) -> None:
    """Print a text as it is, or write it to a file when one is named."""
    from hone.files import atomic_write

    if file:
        atomic_write(file, text)
    else:
        click.echo(text, nl=False)
