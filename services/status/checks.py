"""The checks of one service."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from hone.errors import one_line
from hone.records import Finding

from .asking import Access, certificate_days, get
from .figures import Figures, figures_of

PERCENTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}


@dataclass(frozen=True)
class Wanted:
    """What a service is held against; what isn't given isn't checked.

    Attributes:
        errors: largest share of the requests.
        limits_ms: of latencies, by percentile: p50_ms, p95_ms, p99_ms, p999_ms.
        capacity_rps: requests per second that it was measured to hold.
        headroom: share of it that may be used.
        over_s: that the load is looked at.
        contents: digests of what has to answer, by tag.
        certificate_days: that its certificate must be valid for.
    """

    errors: float = 0.01
    limits_ms: Mapping[str, float] = field(default_factory=dict)
    capacity_rps: float | None = None
    headroom: float = 0.7
    over_s: float = 5.0
    contents: Mapping[str, str] = field(default_factory=dict)
    certificate_days: float = 14.0


def check_service(url: str, access: Access, wanted: Wanted) -> list[Finding]:
    """Return what is in order with a service, and what isn't; one that doesn't answer is one finding."""
    try:
        status, _ = get(url, "/readyz", access)
    except OSError as error:
        remedy = "is it running, and is the address right? k8s/monitoring/runbook.md#honedown"
        return [Finding("ready", "failed", f"{url} doesn't answer: {one_line(error)}", remedy)]
    if status == 200:
        ready = Finding("ready", "ok", f"{url} is ready")
    else:
        ready = Finding("ready", "failed", f"{url}/readyz answers {status}", "its log says what it waits for")
    return [ready, *_certificate(url, access, wanted), *_contents(url, access, wanted), *_figures(url, access, wanted)]


def _certificate(url: str, access: Access, wanted: Wanted) -> Iterator[Finding]:
    if not url.startswith("https://"):
        return
    try:
        days = certificate_days(url, access)
    except OSError as error:
        yield Finding("certificate", "failed", one_line(error), "renew it, or give its authority: --ca")
        return
    detail = f"valid for {days:.0f} more days, {wanted.certificate_days:g} wanted"
    if days >= wanted.certificate_days:
        yield Finding("certificate", "ok", detail)
    else:
        yield Finding("certificate", "failed", detail, "renew it, and start the service again")


def _contents(url: str, access: Access, wanted: Wanted) -> Iterator[Finding]:
    for tag, digest in wanted.contents.items():
        name = tag.partition(":")[0]
        status, body = get(url, f"/v2/models/{name}", access)
        if status in (401, 403):
            yield Finding("content", "unknown", f"{url} wants a key with the scope read", "--api-key, or HONE_API_KEY")
            continue
        told = (json.loads(body).get("parameters") or {}) if status == 200 else {}
        found = f"{told.get('tag', 'nothing')}, {str(told.get('digest') or 'unknown')[:12]}"
        if told.get("digest") == digest:
            yield Finding("content", "ok", f"{name} is answered by {found}, as recorded")
        else:
            detail = f"{name} is answered by {found}; recorded is {tag}, {digest[:12]}"
            yield Finding("content", "failed", detail, "deploy the recorded image again, or record what should answer")


def _figures(url: str, access: Access, wanted: Wanted) -> Iterator[Finding]:
    try:
        first = _read(url, access)
    except (OSError, ValueError) as error:
        yield Finding("metrics", "unknown", f"{url}/metrics: {one_line(error)}", "ask from where Prometheus may")
        return
    if first.stale_keys:
        detail = "the keys in use are not those of the key file"
        yield Finding("keys", "failed", detail, "mend the file that HONE_API_KEYS names: the log says what is wrong")
    detail = f"{first.error_share:.2%} of {first.requests:,.0f} requests, {wanted.errors:.2%} allowed"
    if first.error_share <= wanted.errors:
        yield Finding("errors", "ok", detail)
    else:
        yield Finding("errors", "failed", detail, "k8s/monitoring/runbook.md#honeerrorshigh")
    yield from _latencies(first, wanted)
    if wanted.capacity_rps:
        yield _load(url, access, first, wanted, wanted.capacity_rps)


def _read(url: str, access: Access) -> Figures:
    status, body = get(url, "/metrics", access)
    if status != 200:
        raise ValueError(f"status {status}")
    return figures_of(body.decode())


def _latencies(figures: Figures, wanted: Wanted) -> Iterator[Finding]:
    for name, limit_ms in wanted.limits_ms.items():
        label, seconds = name.removesuffix("_ms"), figures.quantile(PERCENTILES[name])
        if seconds is None:
            yield Finding(label, "unknown", "nothing was asked yet", "ask again when there was load")
        elif seconds * 1e3 <= limit_ms:
            yield Finding(label, "ok", f"about {seconds * 1e3:.1f} ms, {limit_ms:g} ms allowed")
        else:
            detail = f"about {seconds * 1e3:.1f} ms, {limit_ms:g} ms allowed"
            yield Finding(label, "failed", detail, "k8s/monitoring/runbook.md#honeslow")


def _load(url: str, access: Access, first: Figures, wanted: Wanted, capacity: float) -> Finding:
    """Return how much of the capacity the requests of the next seconds use."""
    began = time.monotonic()
    time.sleep(wanted.over_s)
    try:
        rate = _read(url, access).since(first).requests / (time.monotonic() - began)
    except (OSError, ValueError) as error:
        return Finding("load", "unknown", f"{url}/metrics: {one_line(error)}", "ask again")
    if rate < 0:
        return Finding("load", "unknown", "its counters went back: other pods answered, or it started anew", "--each")
    detail = f"{rate:,.1f} requests/s, {rate / capacity:.0%} of a capacity of {capacity:,.1f}"
    if rate <= wanted.headroom * capacity:
        return Finding("load", "ok", detail)
    remedy = "more replicas: k8s/monitoring/runbook.md#honeatmaxreplicas"
    return Finding("load", "failed", f"{detail}, over {wanted.headroom:.0%}", remedy)
