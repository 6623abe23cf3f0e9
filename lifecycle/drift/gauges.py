"""What a watch found, for Prometheus: a few series a model, whatever number of columns it has."""

from __future__ import annotations

from collections.abc import Sequence

from ..watching import gauges
from .findings import Drift, Finding

MOST_GROUPS = 50
"""Tensors with series of their own; the others of a model share `other`."""
OTHER = "other"


class Gauges(gauges.Gauges[Drift]):
    """Series of a registry of their own, by model and tensor."""

    def __init__(self) -> None:
        super().__init__("hone_drift")
        self._effect = self._gauge("hone_drift_effect", "Largest change of a share of rows since the proof.", "group")
        self._low = self._gauge("hone_drift_effect_low", "Its lower bound.", "group")
        self._high = self._gauge("hone_drift_effect_high", "Its upper bound.", "group")
        self._detected = self._gauge("hone_drift_detected", "1 when it is drift.", "group")
        self._undecided = self._gauge("hone_drift_undecided_columns", "Columns of which rows don't tell.")
        self._rows = self._gauge("hone_drift_rows", "Sketched rows that were looked at.")

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
        for family in (self._undecided, self._rows):
            family.remove_by_labels({"model": name})
        self._undecided.labels(name, version).set(sum(one.verdict == "undecided" for one in drift.findings))
        self._rows.labels(name, version).set(drift.rows)
        self._looked(name, version, now_s)


def _grouped(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    groups: dict[str, list[Finding]] = {}
    for one in findings:
        known = one.group in groups or len(groups) < MOST_GROUPS
        groups.setdefault(one.group if known else OTHER, []).append(one)
    return groups
