"""What a look at quality found, for Prometheus: a few series a metric."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .findings import EXIT, Quality


class Gauges:
    """Series of a registry of their own, by model, metric and look."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Gauge

        self._registry = CollectorRegistry()

        def gauge(name: str, words: str, *labels: str) -> Any:
            return Gauge(name, words, ("model", "version", *labels), registry=self._registry)

        each = ("metric", "look")
        self._families = {
            "value": gauge("hone_quality_value", "A metric of labeled answers.", *each),
            "low": gauge("hone_quality_value_low", "Its lower bound.", *each),
            "high": gauge("hone_quality_value_high", "Its upper bound.", *each),
            "proof": gauge("hone_quality_proof", "The metric of the rows of the proof.", *each),
            "loss": gauge("hone_quality_loss", "Loss against the proof, as a share of its figure.", *each),
            "loss_low": gauge("hone_quality_loss_low", "Lower bound of the loss.", *each),
            "state": gauge("hone_quality_state", "1 for the state that holds: act, warn, holds, undecided.", "state"),
            "labeled": gauge("hone_quality_labeled_requests", "Labeled requests that were looked at."),
            "expected": gauge("hone_quality_expected", "Accuracy to expect without labels: an estimate."),
            "expected_low": gauge("hone_quality_expected_loss_low", "Lower bound of the loss to expect."),
            "checked": gauge("hone_quality_checked_timestamp_seconds", "When the last look was."),
        }
        self._failed = Gauge("hone_quality_failed", "1 when the last look failed.", ("model",), registry=self._registry)

    def show(self, found: Quality, now_s: float) -> None:
        """Set the series of a model."""
        name, _, version = found.model.partition(":")
        for family in self._families.values():
            family.remove_by_labels({"model": name})
        of = self._families
        for one in found.measured:
            labels = (name, version, one.metric, one.look)
            of["value"].labels(*labels).set(one.live.value)
            of["low"].labels(*labels).set(one.live.low)
            of["high"].labels(*labels).set(one.live.high)
            of["proof"].labels(*labels).set(one.proof.value)
            of["loss"].labels(*labels).set(one.loss)
            of["loss_low"].labels(*labels).set(one.loss_low)
        for state in EXIT:
            of["state"].labels(name, version, state).set(found.state == state)
        of["labeled"].labels(name, version).set(found.labeled)
        of["checked"].labels(name, version).set(now_s)
        if found.expected is not None:
            of["expected"].labels(name, version).set(found.expected.live.value)
            of["expected_low"].labels(name, version).set(found.expected.loss_low)
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
