"""`hone serve`."""

from __future__ import annotations

import sys
from typing import Any

import click


@click.command()
@click.argument("model")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True)
@click.option("--workers", help="Worker processes, or auto: measured. [default: 1, or the plan's]")
@click.option("--and", "models", multiple=True, metavar="MODEL", help="Serve this model too; may be repeated.")
@click.option("--threads", type=click.IntRange(1), help="Threads of one inference. [default: measured]")
@click.option("--max-batch-rows", type=click.IntRange(1), help="Most rows of a batch. [default: measured]")
@click.option("--max-body-mb", type=click.FloatRange(min=0, min_open=True), help="Largest request body accepted.")
@click.option("--grpc-port", type=click.IntRange(1, 65535), help="Serve the V2 protocol over gRPC here too.")
@click.option("--cache-mb", type=click.FloatRange(min=0), help="Keep so many MB of predictions. [default: 0]")
@click.option(
    "--api-keys",
    type=click.Path(dir_okay=False, resolve_path=True),
    help="Let only callers in who show a key of this file.",
)
@click.option(
    "--audit-log",
    type=click.Path(dir_okay=False, resolve_path=True, allow_dash=True),
    help="Write admin actions here, hash-chained.",
)
@click.option("--insecure", is_flag=True, default=None, help="Serve other addresses than loopback without keys.")
@click.option("--trust-code", is_flag=True, default=None, help="Serve a model that brings code, wherever it is from.")
@click.option(
    "--trusted-keys", type=click.Path(exists=True), help="Serve only what a public key in this folder signed."
)
@click.option(
    "--ssl-certfile",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="Serve HTTPS with this certificate.",
)
@click.option(
    "--ssl-keyfile", type=click.Path(exists=True, dir_okay=False, resolve_path=True), help="The certificate's key."
)
def serve(model: str, host: str, port: int, workers: str | None, models: tuple[str, ...], **options: Any) -> None:
    """Serve a stored MODEL with BentoML.

    MODEL is NAME (the best variant of the newest run that this host can run), NAME:VARIANT or a full tag. Everything
    else that can be set is an environment variable: docs/serving.md.
    """
    from hone.services.launch import serve as launch

    certificate = (options.pop("ssl_certfile"), options.pop("ssl_keyfile"))
    sys.exit(launch(model, host=host, port=port, workers=workers, models=models, certificate=certificate, **options))
