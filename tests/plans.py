"""Plans as services tell them."""

from __future__ import annotations

from typing import Any

from hone.plan import Plan


def plan(**changes: Any) -> Plan:
    content: dict[str, Any] = {
        "model": "digits:onnx-fp32-1", "digest": "d" * 64, "workers": 1, "threads": 1, "in_flight": 1,
        "max_batch_rows": 32, "inline": True, "pad": False, "created": "2026-01-01T00:00:00+00:00",
        "host": {"cpu": "x", "cores": 2},
        "measured": ({"threads": 1, "in_flight": 1, "rows": 32, "seconds": 0.002},),
    }  # fmt: skip
    return Plan.model_validate({**content, **changes})
