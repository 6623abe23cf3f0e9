"""What the controller sees of the pods: samples that were scraped, and rates over windows, as late as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hone.errors import HoneError

from .fleet import Cohort, Fleet, Load
from .hpa.calculator import Pods, Sample
from .hpa.controller import Seen
from .hpa.spec import Autoscaler, Metric
from .pod import Pod
from .trace import Rates

IN_FLIGHT = "hone_in_flight_rows"
REQUESTS = "hone_requests_per_second"


@dataclass(frozen=True)
class Scraping:
    """How metrics come to the controller.

    Attributes:
        every_s: distance of two scrapes; the processor's sample is the mean between the last two.
        offset_s: of the first scrape after the start; later than the controller's first turn by default.
        window_s: of the rate that the metric of rows in flight is (`monitoring/prometheus-adapter.yaml`).
    """

    every_s: float = 15.0
    offset_s: float = 7.5
    window_s: float = 60.0

    def last(self, now: float) -> float:
        """Return when the last scrape was."""
        return self.offset_s + math.floor((now - self.offset_s) / self.every_s + 1e-9) * self.every_s

    def first(self, since: float) -> float:
        """Return when the first scrape at or after a time is."""
        return self.offset_s + math.ceil((since - self.offset_s) / self.every_s - 1e-9) * self.every_s


def is_known(metric: Metric) -> bool:
    """True for a metric whose value follows from the load on a pod."""
    return metric.name in (("cpu",) if metric.kind in ("Resource", "ContainerResource") else (IN_FLIGHT, REQUESTS))


def check_metrics(autoscaler: Autoscaler, where: str) -> None:
    """Refuse metrics that nobody knows the value of.

    Raises:
        HoneError: a metric is none of the processor, rows in flight and requests per second.
    """
    for metric in autoscaler.metrics:
        if not is_known(metric):
            raise HoneError(
                f"{where}: the {metric.kind} metric '{metric.name}' can't be simulated: what it would be is known of "
                f"cpu as a resource, and of {IN_FLIGHT} and {REQUESTS}"
            )


class Sight:
    """Looks at a fleet's load with the eyes of metrics-server and Prometheus.

    Args:
        load: whose sums are read.
        pod: for its request.
        scraping: how metrics are collected.
        lead_s: time before 0 that the load begins with.
    """

    def __init__(self, load: Load, pod: Pod, scraping: Scraping, lead_s: float) -> None:
        self._load = load
        self._pod = pod
        self._scraping = scraping
        self._lead_s = lead_s

    def seen(self, metrics: tuple[Metric, ...], fleet: Fleet, now: float) -> Seen:
        """Return what each metric says now."""
        return {metric: self._said(metric, fleet, now) for metric in metrics}

    def _said(self, metric: Metric, fleet: Fleet, now: float) -> list[Pods] | int | None:
        if metric.kind in ("Resource", "ContainerResource"):
            return [self._pods(cohort, self._cpu(cohort, now), now) for cohort in fleet.cohorts]
        sums = self._load.row_s if metric.name == IN_FLIGHT else self._load.requests
        rates = [(cohort, self.rate(sums, cohort, now)) for cohort in fleet.cohorts]
        if metric.kind == "Pods":
            return [self._pods(cohort, _sample(rate, now), now) for cohort, rate in rates]
        known = [cohort.count * rate for cohort, rate in rates if rate is not None]
        return math.ceil(1000 * sum(known)) if known else None

    def _pods(self, cohort: Cohort, sample: Sample | None, now: float) -> Pods:
        ready = cohort.ready_at <= now
        changed = cohort.ready_at if ready else cohort.created
        return Pods(
            cohort.count, "Running", ready, changed, cohort.created, request=self._pod.cpu_request, sample=sample
        )

    def _cpu(self, cohort: Cohort, now: float) -> Sample | None:
        """Return what metrics-server says: a pod has a sample when it was there at the last two scrapes."""
        at, span = self._scraping.last(now), self._scraping.every_s
        if cohort.created > at - span:
            return None
        used = self._between(self._load.cpu_s, cohort, at - span, at)
        return Sample(math.ceil(1000 * used / span - 1e-6), at, span)

    def rate(self, sums: Rates, cohort: Cohort, now: float) -> float | None:
        """Return what Prometheus says of `rate(counter[window])`; None with fewer than two samples in the window.

        The counter appears with the first scrape of a ready pod. What lies between the samples and the ends of the
        window is filled in as Prometheus does: by half a distance at most, and not below a counter of 0.
        """
        scraping = self._scraping
        begin, last = now - scraping.window_s, scraping.last(now)
        first = scraping.first(max(begin, cohort.ready_at))
        if first <= begin:
            first += scraping.every_s  # The begin isn't part of the window.
        covered = last - first
        if covered <= 0:
            return None
        increase = self._between(sums, cohort, first, last)
        before, after = first - begin, now - last
        half, edge = scraping.every_s / 2, scraping.every_s * 1.1
        before = half if before >= edge else before
        after = half if after >= edge else after
        if increase > 0:
            before = min(before, covered * self._between(sums, cohort, cohort.ready_at, first) / increase)
        return increase * (covered + before + after) / covered / scraping.window_s

    def _between(self, sums: Rates, cohort: Cohort, first: float, last: float) -> float:
        """Return how much a pod's sum grew between two times; it grows from when it is ready."""
        first = max(first, cohort.ready_at)
        return self._at(sums, last) - self._at(sums, first) if last > first else 0.0

    def _at(self, sums: Rates, t: float) -> float:
        """Return a sum at a time, between two ticks on the line that joins them."""
        place = min(max((t + self._lead_s) / self._load.tick_s, 0.0), len(sums) - 1.0)
        low = int(place)
        share = place - low
        return float(sums[low] + share * (sums[low + 1] - sums[low]) if share > 1e-9 else sums[low])


def _sample(rate: float | None, now: float) -> Sample | None:
    return None if rate is None else Sample(math.ceil(1000 * rate - 1e-6), now)
