"""Findings of checks on the terminal: a line each, and what to do where one isn't in order."""

from __future__ import annotations

from collections.abc import Iterable

import click

from hone.records import Finding

COLORS = {"ok": "green", "missing": "red", "failed": "red", "unknown": "yellow"}


def show(findings: Iterable[Finding]) -> None:
    """Print findings."""
    for finding in findings:
        state = click.style(f"{finding.state:8}", fg=COLORS[finding.state])
        click.echo(f"{state} {finding.name}: {finding.detail}")
        if finding.state != "ok":
            click.echo(f"         {finding.remedy}")
