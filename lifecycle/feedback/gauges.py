"""What a look at quality found, for Prometheus: a few series a metric."""

from __future__ import annotations

from ..watching import gauges
from .findings import EXIT, Quality


class Gauges(gauges.Gauges[Quality]):
    """Series of a registry of their own, by model, metric and look."""

    def __init__(self) -> None:
        super().__init__("hone_quality")
        each = ("metric", "look")
        self._families = {
            "value": self._gauge("hone_quality_value", "A metric of labeled answers.", *each),
            "low": self._gauge("hone_quality_value_low", "Its lower bound.", *each),
            "high": self._gauge("hone_quality_value_high", "Its upper bound.", *each),
            "proof": self._gauge("hone_quality_proof", "The metric of the rows of the proof.", *each),
            "loss": self._gauge("hone_quality_loss", "Loss against the proof, as a share of its figure.", *each),
            "loss_low": self._gauge("hone_quality_loss_low", "Lower bound of the loss.", *each),
            "state": self._gauge(
                "hone_quality_state", "1 for the state that holds: act, warn, holds, undecided.", "state"
            ),
            "labeled": self._gauge("hone_quality_labeled_requests", "Labeled requests that were looked at."),
            "expected": self._gauge("hone_quality_expected", "Accuracy to expect without labels: an estimate."),
            "expected_low": self._gauge("hone_quality_expected_loss_low", "Lower bound of the loss to expect."),
            "estimated": self._gauge("hone_quality_estimated", "A metric to expect without labels.", "metric"),
            "estimated_low": self._gauge("hone_quality_estimated_loss_low", "Lower bound of its loss.", "metric"),
        }

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
        for estimate in found.estimates:
            of["estimated"].labels(name, version, estimate.metric).set(estimate.live.value)
            of["estimated_low"].labels(name, version, estimate.metric).set(estimate.loss_low)
        for estimate in found.estimates[:1]:  # of accuracy, which these are of since before there were others
            of["expected"].labels(name, version).set(estimate.live.value)
            of["expected_low"].labels(name, version).set(estimate.loss_low)
        self._looked(name, version, now_s)
