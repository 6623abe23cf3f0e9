"""The overview as a page, as a table for Markdown, and as the block of the README."""

from __future__ import annotations

from pathlib import Path

from hone.errors import HoneError
from hone.files import atomic_write
from hone.pages.render import render

from .records import Overview, Section

BEGIN = "<!-- benchmarks: written by python -m benchmarks.overview --readme -->"
END = "<!-- end of benchmarks -->"


def write(overview: Overview, folder: Path) -> None:
    """Write `benchmarks.html`, `benchmarks.md` and, last, `benchmarks.json`."""
    page = render(Path(__file__).with_name("overview.html"), overview=overview)
    atomic_write(folder / "benchmarks.html", page)
    atomic_write(folder / "benchmarks.md", f"# Benchmarks\n\n{to_markdown(overview)}")
    atomic_write(folder / "benchmarks.json", to_json(overview))


def to_json(overview: Overview) -> str:
    return overview.model_dump_json(indent=2) + "\n"


def to_table(overview: Overview) -> list[str]:
    """Return the lines of a table with a row for each section that has figures; none where none has."""
    rows = [_row(section) for section in overview.sections if section.findings is not None]
    return ["| | result | spread | made |", "|---|---|---|---|", *rows] if rows else []


def to_markdown(overview: Overview) -> str:
    """Return the table, and a line for each section that has no figures."""
    lines = to_table(overview)
    missing = [section for section in overview.sections if section.findings is None]
    if missing:
        lines += [
            "",
            *(f"- {section.title}: {section.status}: {section.reason}; `{section.command}`" for section in missing),
        ]
    return "\n".join(lines) + "\n"


def _row(section: Section) -> str:
    assert section.findings is not None
    made = ", ".join(filter(None, (section.created[:10], section.place)))
    cells = (f"**{section.title}**", section.findings.result, section.findings.spread, f"{made}; `{section.command}`")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def with_block(text: str, overview: Overview) -> str:
    """Return a document whose marked block is the table of an overview, and names what has no figures.

    Raises:
        HoneError: it has no such block.
    """
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise HoneError(f"no block of benchmarks: write '{BEGIN}' and '{END}' where it belongs")
    missing = [section.title for section in overview.sections if section.findings is None]
    lines = to_table(overview) + (["", f"Not measured: {', '.join(missing)}."] if missing else [])
    block = "\n".join(lines).strip("\n")
    return f"{head}{BEGIN}\n{block}\n{END}{tail}"
