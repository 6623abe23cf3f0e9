"""Measured capacities as `hone bench capacity` writes them."""

from __future__ import annotations

from typing import Any

from hone.capacity import Capacity, Slo, Trial


def trial(**changes: Any) -> Trial:
    content: dict[str, Any] = {
        "rate": 1000, "answered": 998, "p50_ms": 3, "p95_ms": 20, "p99_ms": 40, "p999_ms": 60, "mean_ms": 6,
        "error_share": 0, "late_share": 0, "cpu_cores": 1.5, "rss_mb": 300, "passed": True,
    }  # fmt: skip
    return Trial(**{**content, **changes})


def capacity(**changes: Any) -> Capacity:
    content: dict[str, Any] = {
        "model": "digits:onnx-fp32-1", "created": "2026-01-01T00:00:00+00:00", "host": {"cpu": "x", "cores": 2},
        "command": "hone bench capacity digits --p99 50ms", "slo": Slo(limit_ms=50), "rows": 1, "workers": 1,
        "rate": 1000, "rows_per_s": 1000, "spread": 0.1, "in_flight_rows": 6, "ready_s": 4, "limited_by": "service",
        "repeats": [trial(), trial(p99_ms=45), trial(p99_ms=60, passed=False)], "search": [],
    }  # fmt: skip
    return Capacity(**{**content, **changes})
