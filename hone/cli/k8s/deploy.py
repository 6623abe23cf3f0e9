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
def preflight(overlay: Path, cluster: str | None, server: str | None) -> None:
    """List what a cluster lacks for the manifests of OVERLAY; exits with status 1 when something is missing."""
    from hone.k8s.tools.cluster import Cluster
    from hone.k8s.tools.preflight import preflight as check

    arguments = (*(("--context", cluster) if cluster else ()), *(("--server", server) if server else ()))
    findings = check(overlay, Cluster(arguments))
    colors = {"ok": "green", "missing": "red", "unknown": "yellow"}
    for finding in findings:
        click.echo(f"{click.style(f'{finding.state:8}', fg=colors[finding.state])} {finding.name}: {finding.detail}")
        if finding.state != "ok":
            click.echo(f"         {finding.remedy}")
    lacking = sum(finding.state == "missing" for finding in findings)
    click.echo(f"{lacking} missing" if lacking else "nothing is missing")
    sys.exit(1 if lacking else 0)
