"""What a load test found, as typed records: `load.json`. Documented in docs/load-report.md."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hone.errors import HoneError
from hone.files import read_record

from .scenarios import Scenario

SCHEMA_VERSION = 1
LATE_MS = 1.0
LATE_SHARE = 0.05
"""Above it, the generator's own load is part of the latencies: they say little about the service."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Second(_Record):
    """One second of the measurement."""

    second: int
    requests: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None


class Check(_Record):
    """One thing that the run was judged by."""

    name: str = Field(description="The field that was judged, or `error_share`.")
    measured: float
    limit: float = Field(description="The most that is allowed; of `rate`, the least.")
    against: Literal["limit", "baseline"]
    met: bool

    def __str__(self) -> str:
        side = "least" if self.name == "rate" else "most"
        source = "" if self.against == "limit" else ", by the baseline"
        return f"{self.name} {self.measured:g}, at {side} {self.limit:g} allowed{source}"


class LoadReport(_Record):
    """A whole load test."""

    schema_version: Literal[1] = 1
    kind: Literal["load"] = "load"
    model: str = Field(description="The tag of what answered, as the service says.")
    digest: str | None = Field(None, description="Of its content, where the service says it.")
    url: str
    created: str
    scenario: Scenario
    rate_source: Literal["given", "half of the probed capacity", "closed loop"]
    probed_capacity: float | None = Field(None, description="Requests per second that the probe reached.")
    host: dict[str, Any]
    duration_s: float
    requests: int
    errors: int
    errors_by_kind: dict[str, int]
    rate: float = Field(description="Requests answered without error, per second.")
    rows_per_s: float
    p50_ms: float
    p90_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    mean_ms: float
    max_ms: float
    late_share: float = Field(description="Share of requests that the generator itself started over 1 ms late.")
    histogram: list[tuple[float, int]] = Field(description="(upper bound in ms, requests), bounds 10 % apart.")
    timeline: list[Second]
    checks: list[Check] = []

    @property
    def late(self) -> bool:
        """True when the generator was too busy for the latencies to be the service's."""
        return self.late_share > LATE_SHARE

    @property
    def missed(self) -> list[Check]:
        return [check for check in self.checks if not check.met]

    def summary(self) -> str:
        """Return the result in a few lines, for the terminal."""
        lines = [
            f"{self.model}: {self.requests} requests in {self.duration_s:.0f} s, {self.errors} errors",
            f"{self.rate:,.0f} requests/s, {self.rows_per_s:,.0f} rows/s ({self._shape()})",
            f"p50 {self.p50_ms:.2f} ms, p95 {self.p95_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, max {self.max_ms:.1f} ms",
        ]
        lines += [f"  {count} x {kind}" for kind, count in self.errors_by_kind.items()]
        if self.late:
            lines.append(
                f"warning: the generator started {self.late_share:.0%} of the requests late, over {LATE_SHARE:.0%}: "
                "these latencies are partly its own; lower the rate, or run it on another host"
            )
        return "\n".join(lines)

    def _shape(self) -> str:
        if self.scenario.kind == "closed":
            return f"closed loop, {self.scenario.users} callers"
        source = "" if self.rate_source == "given" else f", {self.rate_source}"
        return f"open loop, Poisson arrivals at {self.scenario.rate:,.0f}/s{source}"


def measure(records: list[tuple[float, float, float, str]], scenario: Scenario) -> dict[str, Any]:
    """Return the measured fields of a report.

    Args:
        records: (intended, started, ended, error) of each request, seconds from the start.
        scenario: requests meant for its warm-up are left out.

    Raises:
        HoneError: no request was made.
    """
    counted = [record for record in records if record[0] >= scenario.warm_up_s]
    if not counted:
        raise HoneError("the load test made no request; raise the rate or the duration")
    intended, started, ended = (np.array([record[column] for record in counted]) for column in range(3))
    failed = np.array([bool(record[3]) for record in counted])
    latencies = (ended - intended) * 1e3
    good = latencies[~failed] if not failed.all() else latencies
    p50, p90, p95, p99, p999 = (round(float(v), 4) for v in np.percentile(good, [50, 90, 95, 99, 99.9]))
    elapsed = max(float(ended.max()) - scenario.warm_up_s, scenario.duration_s)
    answered = int((~failed).sum())
    return {
        "duration_s": round(elapsed, 3),
        "requests": len(counted),
        "errors": int(failed.sum()),
        "errors_by_kind": dict(Counter(record[3] for record in counted if record[3]).most_common()),
        "rate": round(answered / elapsed, 3),
        "rows_per_s": round(answered * scenario.rows / elapsed, 3),
        "p50_ms": p50,
        "p90_ms": p90,
        "p95_ms": p95,
        "p99_ms": p99,
        "p999_ms": p999,
        "mean_ms": round(float(good.mean()), 4),
        "max_ms": round(float(good.max()), 4),
        "late_share": round(float(((started - intended) * 1e3 > LATE_MS).mean()), 4),
        "histogram": _histogram(good),
        "timeline": _timeline(intended - scenario.warm_up_s, latencies, failed),
    }


def _histogram(latencies: np.ndarray) -> list[tuple[float, int]]:
    low = max(float(latencies.min()), 0.01)
    steps = np.ceil(np.log(np.maximum(latencies, low) / low) / np.log(1.1)).astype(int)
    counts = np.bincount(steps)
    return [(round(low * 1.1**step, 4), int(count)) for step, count in enumerate(counts) if count]


def _timeline(moments: np.ndarray, latencies: np.ndarray, failed: np.ndarray) -> list[Second]:
    seconds = []
    for second in range(int(moments.max()) + 1):
        here = (moments >= second) & (moments < second + 1)
        good = latencies[here & ~failed]
        p50, p99 = np.percentile(good, [50, 99]) if len(good) else (None, None)
        seconds.append(
            Second(
                second=second,
                requests=int(here.sum()),
                errors=int((here & failed).sum()),
                p50_ms=None if p50 is None else round(float(p50), 4),
                p99_ms=None if p99 is None else round(float(p99), 4),
            )
        )
    return seconds


def read_load_report(file: Path) -> LoadReport:
    """Read a `load.json`; raises HoneError when it is none."""
    return read_record(file, LoadReport, f"not a load report, version {SCHEMA_VERSION}")
