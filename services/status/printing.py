"""Findings as lines for the terminal: what was found, and what to do where it isn't in order; or as JSON."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

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


def to_json(url: str, findings: Sequence[Finding]) -> str:
    """Return the findings of a service as JSON."""
    report = {
        "schema": 1,
        "kind": "status",
        "url": url,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "verdict": "failed" if any(finding.is_bad for finding in findings) else "ok",
        "findings": [asdict(finding) for finding in findings],
    }
    return json.dumps(report, indent=2)
