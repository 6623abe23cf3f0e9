"""`hone profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hone.cli.printing import columns

if TYPE_CHECKING:
    from hone.profiles.activations.record import Activations
    from hone.profiles.record import OperatorTime, Profile

SHOWN = 8
"""Types of operators in the table; the others are one line."""
NAME = 48
"""Letters of a value's name in a table: the last ones tell it from others."""


@click.command()
@click.argument("model")
@click.option("--against", metavar="MODEL", help="Another variant: both side by side, by what operators are for.")
@click.option("--rows", type=click.IntRange(1), help="Rows to run in all. Default: about a second's.")
@click.option("--batch", type=click.IntRange(1), help="Rows of a batch. Default: as its proof was judged.")
@click.option("--threads", type=click.IntRange(1), help="Of one inference. Default: HONE_PLAN's, or as judged.")
@click.option("--activations", is_flag=True, help="The values inside instead: ranges, dead units, outliers, by layer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line: MODEL's, then --against's.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Write profile.json and the raw trace.")
def profile(
    model: str,
    against: str | None,
    rows: int | None,
    batch: int | None,
    threads: int | None,
    activations: bool,
    as_json: bool,
    out: Path | None,
) -> None:
    """Say where the time of a stored MODEL goes: its operators, and what keeps it from being faster.

    It is run as it is served, by its runtime's own profiler; a batch without the profiler is timed beside it.
    With --activations no time is taken: an ONNX variant's values are looked at, over 256 rows or --rows.
    """
    if activations:
        if against is not None or batch is not None or threads is not None:
            raise click.UsageError("--activations takes --rows, --json and --out; it has no batches and no times")
        _show_activations(model, rows, as_json, out)
        return
    from hone.files import check_writable
    from hone.profiles.stored import asked
    from hone.profiles.writing import take_and_write

    if out is not None:
        check_writable(out, "the profile")
    wanted = [asked(name, batch, rows, threads) for name in (model, against) if name is not None]
    folders = [out, out and out / "against"]
    found = [take_and_write(one, folder) for one, folder in zip(wanted, folders, strict=False)]
    if as_json:
        for one in found:
            click.echo(one.model_dump_json())
        return
    click.echo("\n\n".join(_text(one) for one in found))
    if len(found) == 2:
        click.echo(f"\n{_side_by_side(*found)}")
    for folder in folders[: len(found)] if out is not None else []:
        click.echo(f"wrote {folder}/profile.json, and trace.json for https://ui.perfetto.dev")


def _show_activations(model: str, rows: int | None, as_json: bool, out: Path | None) -> None:
    from hone.files import check_writable
    from hone.profiles.activations.collect import activations
    from hone.profiles.activations.writing import write

    if out is not None:
        check_writable(out, "the activations")
    found = activations(model, rows)
    if out is not None:
        write(found, out)
    click.echo(found.model_dump_json() if as_json else _values(found))
    if out is not None and not as_json:
        click.echo(f"wrote {out}/activations.json and activations.html")


def _values(found: Activations) -> str:
    """Return a line for each value inside, those with something to know in full below."""
    header = ("VALUE", "OPERATOR", "FROM", "TO", "MEAN", "STD", "ZEROS", "DEAD", "INT8 ERROR", "")
    rows = [
        (
            layer.tensor[-NAME:],
            layer.operator,
            *(f"{figure:.4g}" for figure in (layer.least, layer.most, layer.mean, layer.std)),
            f"{layer.zeros:.0%}",
            f"{layer.dead} of {layer.channels}" if layer.dead else "",
            "" if layer.int8_noise is None else f"{layer.int8_noise:.2%}",
            "!" if layer.remarks else "",
        )
        for layer in found.layers
    ]
    lines = [
        f"{found.model}  {found.precision}, {found.rows} rows: {found.rows_from}",
        "",
        columns([header, *rows]),
        "",
    ]
    for layer in found.layers:
        lines += [f"{layer.tensor[-NAME:]} ({layer.operator}): {remark.line}" for remark in layer.remarks]
    if not any(layer.remarks for layer in found.layers):
        lines.append("no dead units, no outlying channels, and ranges that int8 steps fit")
    return "\n".join([*lines, *(f"note    {note}" for note in found.notes)])


def _text(found: Profile) -> str:
    """Return what a person reads in half a minute."""
    shapes = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in found.shapes.items())
    lines = [
        f"{found.model}  {found.precision}, {found.runtime}, threads {found.threads} ({found.threads_from})",
        f"rows    {found.rows_from}; batches of {found.batch} ({shapes}), {found.runs} runs",
        f"time    {found.plain_ms:.3f} ms a batch; {found.profiled_ms:.3f} ms with the profiler "
        f"({found.overhead:+.0%}): MS shares out the former",
        "",
        columns([("OPERATOR", "SHARE", "MS", "NODES", "WHERE", "SLOWEST NODE"), *_rows(found)]),
        "",
    ]
    for finding in found.findings:
        share = "" if finding.share is None else f"{finding.share:.1%}"
        lines.append(f"{share:>6}  {finding.what}")
        if finding.nodes:
            lines.append(f"        at {', '.join(finding.nodes[:3])}{', …' if len(finding.nodes) > 3 else ''}")
        if finding.remedy:
            lines.append(f"        {finding.remedy}")
    if not found.findings:
        lines.append("nothing found that keeps it from being faster")
    if found.lacks:
        lines.append(f"host    {found.host['cpu']}, without {', '.join(found.lacks)}")
    lines += [f"note    {note}" for note in found.notes]
    return "\n".join(lines)


def _rows(found: Profile) -> list[tuple[str, ...]]:
    first, rest = found.operators[:SHOWN], found.operators[SHOWN:]
    rows = [_row(one, _slowest(found, one)) for one in first]
    if rest:
        share, ms, nodes = (sum(getattr(one, name) for one in rest) for name in ("share", "ms", "nodes"))
        rows.append((f"{len(rest)} others", f"{share:.1%}", f"{ms:.3f}", str(nodes), "", ""))
    if found.outside_ms > found.plain_ms / 100:
        rows.append(("none", "", f"{found.outside_ms:.3f}", "", "", "calling the runtime"))
    return rows


def _row(one: OperatorTime, slowest: str) -> tuple[str, ...]:
    return (one.operator, f"{one.share:.1%}", f"{one.ms:.3f}", str(one.nodes), one.where, slowest)


def _slowest(found: Profile, one: OperatorTime) -> str:
    node = next(node for node in found.nodes if (node.operator, node.where) == (one.operator, one.where))
    return f"{node.name} ({node.share:.1%})"


def _side_by_side(first: Profile, second: Profile) -> str:
    from hone.profiles.compare import side_by_side, summary

    rows = [("FOR", "MS", "MS", "CHANGE", first.model.partition(":")[2], second.model.partition(":")[2])]
    for side in side_by_side(first, second):
        times = (f"{side.first_ms:.3f}", f"{side.second_ms:.3f}", f"{side.change_ms:+.3f}")
        rows.append((side.name, *times, ", ".join(side.first), ", ".join(side.second)))
    plain = (f"{first.plain_ms:.3f}", f"{second.plain_ms:.3f}", f"{second.plain_ms - first.plain_ms:+.3f}")
    rows.append(("a batch, plain", *plain, "", ""))
    return f"{columns(rows)}\n\n{summary(first, second)}"
