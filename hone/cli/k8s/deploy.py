"""`hone deploy`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from hone.cli.groups import HoneGroup


@click.group(cls=HoneGroup)
def deploy() -> None:
    """Check a cluster before a deployment."""


@deploy.command()
@click.argument("overlay", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--context", "cluster", help="Of kubectl's configuration. [default: the current one]")
@click.option("--server", help="Address of the API server, for one without a kubectl configuration.")
@click.option("--backups", type=click.Path(path_type=Path), help="Folder that hone backup writes to.")
@click.option("--backup-days", type=click.FloatRange(min=0, min_open=True), default=1.0, show_default=True)
@click.option("--verify-key", type=click.Path(path_type=Path), help="Public key (PEM) that must have signed images.")
def preflight(
    overlay: Path, cluster: str | None, server: str | None, backups: Path | None, backup_days: float,
    verify_key: Path | None,
) -> None:  # fmt: skip
    """List what a deployment of the manifests of OVERLAY lacks; exits with status 1 when something is missing.

    The cluster is asked for what the manifests need, its secrets for keys, its Prometheus whether it will scrape the
    pods, and registries whether they have the images.
    """
    from hone.k8s.tools.cluster import Cluster, manifests
    from hone.k8s.tools.preflight import images
    from hone.k8s.tools.preflight import preflight as check
    from hone.k8s.tools.registry.keys import read_verifying_key
    from hone.services.status.host import backup_age
    from hone.services.status.printing import show

    key = None if verify_key is None else read_verifying_key(verify_key)
    arguments = (*(("--context", cluster) if cluster else ()), *(("--server", server) if server else ()))
    findings = check(overlay, Cluster(arguments))
    findings += [*images(manifests(overlay), key), backup_age(backups, backup_days)]
    show(findings)
    lacking = sum(finding.is_bad for finding in findings)
    click.echo(f"{lacking} missing" if lacking else "nothing is missing")
    sys.exit(1 if lacking else 0)
