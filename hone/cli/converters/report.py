"""`hone report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("report", type=click.Path(path_type=Path))
def report(report: Path) -> None:
    """Draw the page of a report.json, load.json or capacity.json anew."""
    click.echo(f"wrote {_page(report)}")


def _page(file: Path) -> Path:
    """Draw what a file is; return its page.

    Raises:
        HoneError: it has no page, or is no report; the message says what it is.
    """
    from hone.errors import HoneError

    kind = _kind(file)
    if kind == "load":
        from hone.benchmarks.reports import load

        load.redraw(file)
        return file.with_name("load.html")
    if kind == "capacity":
        from hone.benchmarks.reports import capacity

        capacity.redraw(file)
        return file.with_suffix(".html")
    if kind in WITHOUT_PAGE:
        raise HoneError(f"{file}: is {WITHOUT_PAGE[kind]}; hone report draws report.json, load.json and capacity.json")
    from hone.converters.report.page import write_html
    from hone.converters.report.records import read_report

    return write_html(read_report(file), file.parent)


WITHOUT_PAGE = {
    "comparison": "what hone bench compare writes, which has no page",
    "comparison-at-once": "what hone bench compare --at-once writes, which has no page",
    "autoscaling": "what hone k8s simulate writes, whose picture is beside it",
    "benchmarks": "what python -m benchmarks.overview writes, which draws its page: --no-run",
}
"""Other records by their kind, in words."""


def _kind(file: Path) -> str:
    """Return what kind of record a file says that it is; nothing where it doesn't."""
    import json

    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return ""  # who reads it says what is wrong
    return str(content.get("kind", "")) if isinstance(content, dict) else ""
