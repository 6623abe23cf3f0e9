"""What a service's metrics say of its requests: how many, how many failed, how long they took."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

SAMPLE = re.compile(r"^(\w+?)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


@dataclass(frozen=True)
class Figures:
    """Sums over a service's models.

    Attributes:
        requests: answered, with refusals.
        errors: of them those with a status from 500 up, as the alerts count them.
        buckets: requests up to a latency, by its bound in seconds; cumulative.
        stale_keys: the keys in use are not those of the key file.
    """

    requests: float
    errors: float
    buckets: dict[float, float]
    stale_keys: bool

    @property
    def error_share(self) -> float:
        return self.errors / self.requests if self.requests else 0.0

    def since(self, before: Figures) -> Figures:
        """Return what came after other figures of the same service."""
        buckets = {bound: count - before.buckets.get(bound, 0.0) for bound, count in self.buckets.items()}
        return Figures(self.requests - before.requests, self.errors - before.errors, buckets, self.stale_keys)

    def quantile(self, share: float) -> float | None:
        """Return a quantile in seconds, between two bounds on the line that joins them, as Prometheus does.

        None when nothing was answered. One beyond the last bound is infinite: it isn't known.
        """
        bounds = sorted(self.buckets)
        total = self.buckets[bounds[-1]] if bounds else 0.0
        if not total:
            return None
        rank, low, below = share * total, 0.0, 0.0
        for bound in bounds:
            count = self.buckets[bound]
            if count >= rank:
                return math.inf if math.isinf(bound) else low + (bound - low) * (rank - below) / (count - below)
            low, below = bound, count
        return math.inf


def figures_of(text: str) -> Figures:
    """Read figures from the text that `/metrics` answers."""
    requests = errors = 0.0
    buckets: dict[float, float] = {}
    stale = False
    for name, inside, value in SAMPLE.findall(text):
        if name == "hone_key_file_stale":
            stale = stale or float(value) > 0
        if name not in ("hone_requests_total", "hone_request_seconds_bucket"):
            continue
        labels = dict(LABEL.findall(inside))
        if name == "hone_requests_total":
            requests += float(value)
            errors += float(value) if labels.get("status", "").startswith("5") else 0.0
        else:
            bound = float(labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + float(value)
    return Figures(requests, errors, buckets, stale)
