"""`hone up`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import click

from hone.cli.printing import columns

if TYPE_CHECKING:
    from hone.lifecycle.replicas.fleet import Place
    from hone.lifecycle.replicas.state import Wanted

OPTIONS = {"workers": "--workers", "threads": "--threads", "api_keys": "--api-keys"}
"""Given on to `hone serve`."""


@click.command()
@click.argument("model")
@click.option("--replicas", type=click.IntRange(1, 64), help="Processes that serve it. [default: 2, or as before]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that nginx listens on.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True)
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Take the V2 protocol over gRPC here too.")
@click.option("--workers", type=click.IntRange(1), help="Worker processes of each replica. [default: 1]")
@click.option("--threads", type=click.IntRange(1), help="Threads of one inference. [default: measured]")
@click.option(
    "--api-keys",
    type=click.Path(dir_okay=False, resolve_path=True),
    help="Let only callers in who show a key of this file.",
)
@click.option("--ssl-certfile", type=click.Path(), help="Let nginx speak TLS, with this certificate (PEM).")
@click.option("--ssl-keyfile", type=click.Path(), help="The certificate's key.")
@click.option("--detach", "-d", is_flag=True, help="Return when all is ready; hone down ends it.")
@click.option("--status", is_flag=True, help="Only say what runs.")
@click.option("--json", "as_json", is_flag=True, help="With --status: as JSON.")
def up(model: str, detach: bool, status: bool, as_json: bool, **given: Any) -> None:
    """Serve a stored MODEL with several processes behind nginx, and keep them running until Ctrl-C.

    A replica gets requests while it is ready; one that ends is started again, later each time, and given up after five
    failures in a row. A new version: `hone rollout start`. After a kill, NAME alone goes on with what ran before.
    """
    if status:
        _status(model, as_json)
        return
    from hone.lifecycle.replicas.balancer import require_nginx
    from hone.lifecycle.replicas.fleet import Place

    require_nginx()
    place = Place(given["host"], given["port"], given["grpc_port"], given["ssl_certfile"], given["ssl_keyfile"])
    options = [part for name, option in OPTIONS.items() if given[name] for part in (option, str(given[name]))]
    if detach:
        _detached(model)
    else:
        _keep(model, given["replicas"], place, tuple(options), given["api_keys"])


def _keep(model: str, count: int | None, place: Place, options: tuple[str, ...], keys: str | None) -> None:
    from hone.lifecycle.replicas.fleet import first_wanted
    from hone.lifecycle.replicas.state import keeping
    from hone.lifecycle.replicas.supervise import Supervisor, logs_of, url_of

    name = _name_of(model)
    with keeping(name):
        place.check({**os.environ, **({"HONE_API_KEYS": keys} if keys else {})})
        wanted, why = first_wanted(model, count, place, options)
        click.echo(f"{_told(wanted)} ({why}) at {url_of(wanted)}; logs: {logs_of(name)}", err=True)
        stopping = threading.Event()

        def stop(number: int, _: Any) -> None:
            if stopping.is_set():
                raise KeyboardInterrupt
            stopping.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        Supervisor(name, lambda text: click.echo(text, err=True), pid=os.getpid()).run(stopping)
        click.echo("stopped", err=True)


def _name_of(model: str) -> str:
    return model.partition("@")[0].partition(":")[0]


def _told(wanted: Wanted) -> str:
    return ", ".join(f"{len(wanted.of(version))} x {wanted.name}:{version}" for version in wanted.versions)


def _detached(model: str) -> None:
    """Start the same command in the background; return when nginx answers, or say why it doesn't."""
    from hone.errors import HoneError
    from hone.lifecycle.replicas.life import last_words
    from hone.lifecycle.replicas.state import folder_of, is_kept, keeper, seen_of

    name = _name_of(model)
    folder = folder_of(name)
    if is_kept(name):
        raise HoneError(f"'{name}' is up already, by process {keeper(name)}; hone down {name}")
    log = folder / "up.log"
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    code = "from hone.cli.main import main; main()"
    words = [word for word in sys.argv[1:] if word not in ("-d", "--detach")]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
        )  # fmt: skip
    while process.poll() is None:
        seen = seen_of(name)
        if seen and seen.in_force and all(life.state != "starting" for life in seen.lives):
            click.echo(f"up at {seen.url}; hone up {name} --status, hone down {name}; log: {log}")
            return
        time.sleep(0.2)
    raise HoneError(last_words(log).removeprefix("error: "))


def _status(model: str, as_json: bool) -> None:
    from hone.lifecycle.replicas.fleet import Fleet
    from hone.lifecycle.replicas.state import seen_of

    name = _name_of(model)
    wanted, seen = Fleet(name).wanted, seen_of(name)
    if as_json:
        found = {"wanted": wanted.model_dump(mode="json"), "seen": seen.model_dump(mode="json") if seen else None}
        click.echo(json.dumps(found))
        return
    if seen is None:
        click.echo(f"'{name}' isn't up; wanted are {_told(wanted)}: hone up {name}")
        sys.exit(3)
    click.echo(f"{seen.url}: nginx {seen.balancer or 'ended'}, kept running by process {seen.pid}")
    if seen.why:
        click.echo(f"nginx: {seen.why}")
    rows = [("REPLICA", "VERSION", "SHARE", "PORT", "PROCESS", "STATE", "RESTARTS", "WHY")]
    for life in seen.lives:
        share = f"{seen.in_force.get(life.version, 0):.4g} %"
        row = (life.id, life.version, share, str(life.port), str(life.pid or "-"), life.state, str(life.restarts))
        rows.append((*row, life.why))
    click.echo(columns(rows))
    if not all(life.state == "ready" for life in seen.lives):
        sys.exit(3)
