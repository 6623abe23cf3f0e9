"""What a watch found, for Prometheus: a few series a model, whatever number of columns it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .findings import Drift, Finding

MOST_GROUPS = 50
"""Tensors with series of their own; the others of a model share `other`."""
OTHER = "other"


class Gauges:
    """Series of a registry of their own, by model and tensor."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Gauge

        self._registry = CollectorRegistry()

        def gauge(name: str, words: str, *labels: str) -> Any:
            return Gauge(name, words, ("model", "version", *labels), registry=self._registry)

        self._effect = gauge("hone_drift_effect", "Largest change of a share of rows since the proof.", "group")
        self._low = gauge("hone_drift_effect_low", "Its lower bound.", "group")
        self._high = gauge("hone_drift_effect_high", "Its upper bound.", "group")
        self._detected = gauge("hone_drift_detected", "1 when it is drift.", "group")
        self._undecided = gauge("hone_drift_undecided_columns", "Columns of which rows don't tell.")
        self._rows = gauge("hone_drift_rows", "Sketched rows that were looked at.")
        self._checked = gauge("hone_drift_checked_timestamp_seconds", "When the last look was.")
        self._failed = Gauge("hone_drift_failed", "1 when the last look failed.", ("model",), registry=self._registry)

    def show(self, drift: Drift, now_s: float) -> None:
        """Set the series of a model."""
        name, _, version = drift.model.partition(":")
        for family in (self._effect, self._low, self._high, self._detected):
            family.remove_by_labels({"model": name})
        for group, found in _grouped(drift.findings).items():
            labels = {"model": name, "version": version, "group": group}
            self._effect.labels(**labels).set(max(one.effect for one in found))
            self._low.labels(**labels).set(max(one.low for one in found))
            self._high.labels(**labels).set(max(one.high for one in found))
            self._detected.labels(**labels).set(any(one.verdict == "missed" for one in found))
        for family in (self._undecided, self._rows, self._checked):
            family.remove_by_labels({"model": name})
        self._undecided.labels(name, version).set(sum(one.verdict == "undecided" for one in drift.findings))
        self._rows.labels(name, version).set(drift.rows)
        self._checked.labels(name, version).set(now_s)
        self._failed.labels(name).set(0)

    def fail(self, model: str) -> None:
        """Show that a look failed."""
        self._failed.labels(model.partition(":")[0].partition("@")[0]).set(1)

    def serve(self, host: str, port: int) -> None:
        """Answer Prometheus at `/metrics`, in a thread.

        Raises:
            OSError: the port is taken.
        """
        from prometheus_client import start_http_server

        start_http_server(port, host, self._registry)

    def write(self, file: Path) -> None:
        """Write a file for node_exporter's textfile collector, by rename."""
        from prometheus_client import generate_latest

        from hone.files import atomic_write

        atomic_write(file, generate_latest(self._registry))


def _grouped(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    groups: dict[str, list[Finding]] = {}
    for one in findings:
        known = one.group in groups or len(groups) < MOST_GROUPS
        groups.setdefault(one.group if known else OTHER, []).append(one)
    return groups
