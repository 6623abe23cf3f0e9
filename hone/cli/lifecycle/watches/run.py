"""What a `watch` does until it is stopped."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import click

from hone.cache import cache_dir
from hone.lifecycle.watching.alerts import read_settings
from hone.lifecycle.watching.gauges import Gauges
from hone.lifecycle.watching.watch import F, Memory, Watching
from hone.sketches.bucket import address_of

from .options import Watched


def keep_watching(
    watched: Watched,
    kind: type[Watching[F]],
    gauges: Gauges[F],
    models: Sequence[str],
    folder: Path,
    look: Callable[[str], F],
    every_s: float,
    status: Callable[[Sequence[F]], int],
) -> None:
    """Look at models until a signal comes, or once.

    Args:
        kind: of the watch.
        folder: that holds what is looked at, and what was told.
        look: at a model.
        every_s: seconds between two looks.
        status: to exit with after the only look; it gets what was found of the models that could be looked at.
    """
    alerts = read_settings(watched.alert) if watched.alert else None
    here = cache_dir() / "sketches" if address_of(folder) else folder
    memory = Memory.of(watched.state or here / "watch.json")
    watching = kind(models, look, gauges, alerts, memory, watched.textfile, click.echo)
    if watched.metrics_port:
        gauges.serve(watched.metrics_host, watched.metrics_port)
    if watched.once:
        sys.exit(status(watching.turn()))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watching.run(every_s, stop)
