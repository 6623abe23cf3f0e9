"""The options that every `watch` has."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

OPTIONS = (
    click.option("--once", is_flag=True, help="Look once and exit as check does: for a cron job."),
    click.option("--alert", type=click.Path(path_type=Path), help="Whom to tell: docs/drift.md has the file's fields."),
    click.option("--state", type=click.Path(path_type=Path), help="What was told. [default: watch.json in --dir]"),
    click.option("--metrics-port", type=click.IntRange(1, 65535), help="Answer Prometheus here."),
    click.option("--metrics-host", default="127.0.0.1", show_default=True),
    click.option("--textfile", type=click.Path(path_type=Path), help="Write the metrics here, for node_exporter."),
)


@dataclass(frozen=True)
class Watched:
    """What was asked of a watch; its fields are the options."""

    once: bool
    alert: Path | None
    state: Path | None
    metrics_port: int | None
    metrics_host: str
    textfile: Path | None


def watch_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a watch, as its argument `watched`."""

    @functools.wraps(command)
    def with_options(**given: Any) -> None:
        own = {name: given.pop(name) for name in Watched.__dataclass_fields__}
        command(**given, watched=Watched(**own))

    for option in reversed(OPTIONS):
        option(with_options)
    return with_options
