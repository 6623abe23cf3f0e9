"""`hone report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("report", type=click.Path(path_type=Path))
def report(report: Path) -> None:
    """Draw report.html anew from a report.json."""
    from hone.converters.report.page import write_html
    from hone.converters.report.records import read_report

    click.echo(f"wrote {write_html(read_report(report), report.parent)}")
