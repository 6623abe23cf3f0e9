"""`hone down`."""

from __future__ import annotations

import os
import signal
import time

import click

PATIENCE_S = 90.0


@click.command()
@click.argument("name")
def down(name: str) -> None:
    """End what `hone up NAME` keeps running: nginx first, then the replicas, which answer what they have.

    What ran is forgotten, so that the next start chooses anew; while a rollout isn't over it is kept.
    """
    from hone.errors import HoneError
    from hone.lifecycle.replicas.state import ReplicasError, forget, is_kept, keeper, wanted_of

    if not is_kept(name):
        raise ReplicasError(f"'{name}' isn't up")
    process = keeper(name)
    if process:
        os.kill(process, signal.SIGTERM)
    deadline = time.monotonic() + PATIENCE_S
    while is_kept(name):
        if time.monotonic() > deadline:
            raise HoneError(f"process {process} doesn't end; look at its log, or kill it: kill -9 {process}")
        time.sleep(0.1)
    wanted = wanted_of(name)
    if wanted is not None and len(wanted.versions) > 1:
        click.echo(f"'{name}' is down; a rollout isn't over: hone up {name} goes on with what ran")
        return
    forget(name)
    click.echo(f"'{name}' is down")
