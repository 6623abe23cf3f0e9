"""What `hone init` and `hone optimize MODEL` ask for alike: rows, labels and limits of a first recipe."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hone.converters.recipes.init import Given

OPTIONS = (
    click.option(
        "--data",
        type=click.Path(path_type=Path),
        help="An .npz, .csv or .parquet file of typical rows: some calibrate, the others judge; none does both.",
    ),
    click.option("--labels", metavar="NAME", help="Array or column of --data with the right answers. [default: none]"),
    click.option("--loss", metavar="LOSS", help="Largest loss: in the metric's unit, or as a share such as 1%."),
    click.option("--p95-ms", type=click.FloatRange(0, min_open=True), help="Largest 95th percentile latency, ms."),
    click.option("--size-mb", type=click.FloatRange(0, min_open=True), help="Largest size on disk, MB."),
)


def asked_for(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def given(
    evaluation: Path | None,
    data: Path | None,
    labels: str | None,
    loss: str | None,
    p95_ms: float | None,
    size_mb: float | None,
) -> Given:
    """Return what the options say.

    Raises:
        BadParameter: the loss is no number and no share.
    """
    from hone.converters.recipes.first_recipe import Asked
    from hone.converters.recipes.init import Given

    return Given(evaluation, data, labels, Asked(None if loss is None else _loss(loss), p95_ms, size_mb))


def _loss(text: str) -> float | str:
    if re.fullmatch(r"\d+(\.\d+)?\s*%", text.strip()):
        return text.strip()
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise click.BadParameter(f"'{text}' is no number (0.01) and no share ('1%')", param_hint="--loss")
    return value
