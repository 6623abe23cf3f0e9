"""What a watch found, for Prometheus: series of a registry of their own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

F_contra = TypeVar("F_contra", contravariant=True)


class Gauges(ABC, Generic[F_contra]):
    """Series by model and version.

    Args:
        prefix: of the names of the series that every watch has.
    """

    def __init__(self, prefix: str) -> None:
        from prometheus_client import CollectorRegistry, Gauge

        self._registry = CollectorRegistry()
        self._checked = self._gauge(f"{prefix}_checked_timestamp_seconds", "When the last look was.")
        failed = f"{prefix}_failed"
        self._failed = Gauge(failed, "1 when the last look failed.", ("model",), registry=self._registry)

    def _gauge(self, name: str, words: str, *labels: str) -> Any:
        from prometheus_client import Gauge

        return Gauge(name, words, ("model", "version", *labels), registry=self._registry)

    @abstractmethod
    def show(self, found: F_contra, now_s: float) -> None:
        """Set the series of a model."""

    def _looked(self, name: str, version: str, now_s: float) -> None:
        """Show that a look was made."""
        self._checked.remove_by_labels({"model": name})
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
