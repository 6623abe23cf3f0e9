"""What a service must do under overload, and whether it did."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..records import LATE_MS
from .sending import ANSWERED, REFUSED, Came, Load

GOODPUT = 0.9
"""Of the capacity: so much is answered in time however much more is asked."""

IN_TIME = 0.999
"""Of what is accepted: nothing is computed whose answer is worthless."""

REFUSAL_P99_MS = 5.0
"""A caller who is refused can go elsewhere at once."""

READY_P999_MS = 1000.0
"""A kubelet's probe waits for a second by default: overload must not end the pod."""


@dataclass(frozen=True)
class Aim:
    """One aim.

    Attributes:
        name: of it.
        measured: None: nothing came that could be measured.
        limit: the least where `at_least`, else the most.
        met: whether it was.
    """

    name: str
    measured: float | None
    limit: float
    at_least: bool
    met: bool

    def __str__(self) -> str:
        state = "met   " if self.met else "MISSED"
        measured = "nothing to measure" if self.measured is None else f"{self.measured:g}"
        return f"{state} {self.name}: {measured}, at {'least' if self.at_least else 'most'} {self.limit:g}"


def judge(came: Came, load: Load, capacity: float) -> dict[str, Any]:
    """Return the figures of an overload and its verdict on each aim.

    Args:
        came: of it.
        load: that was sent.
        capacity: requests per second that the service holds within its limits.
    """
    answered, refused = came.kinds == ANSWERED, came.kinds == REFUSED
    in_time = answered & (came.took_ms <= load.deadline_ms)
    goodput = float(in_time.sum()) / load.seconds
    aims = [
        _at_least("goodput_share_of_capacity", goodput / capacity, GOODPUT),
        _at_least("accepted_in_time_share", float(in_time.sum() / answered.sum()) if answered.any() else None, IN_TIME),
        _at_most("refusals_p99_ms", _percentile(came.took_ms[refused], 99), REFUSAL_P99_MS),
        _at_most("readyz_p999_ms", _percentile(np.array(came.ready.milliseconds), 99.9), READY_P999_MS),
        _at_most("readyz_failed", float(came.ready.failed), 0.0),
        _at_most("other_errors", float((~answered & ~refused).sum()), 0.0),
    ]
    others, counts = np.unique(came.kinds[~answered & ~refused].astype(str), return_counts=True)
    return {
        "offered_rps": round(len(came.kinds) / load.seconds, 1),
        "requests": len(came.kinds),
        "accepted": int(answered.sum()),
        "refused": int(refused.sum()),
        "others": {str(kind): int(count) for kind, count in zip(others, counts, strict=True)},
        "goodput_rps": round(goodput, 1),
        "accepted_ms": _spread(came.took_ms[answered]),
        "refusals_ms": _spread(came.took_ms[refused]),
        "readyz_ms": {**_spread(np.array(came.ready.milliseconds)), "asked": len(came.ready.milliseconds)},
        "generator": {
            "cpu_share": came.cpu_share,
            "late_p99_ms": _percentile(came.late_ms, 99),
            "late_share": round(float((came.late_ms > LATE_MS).mean()), 4),
        },
        "host_stalls_ms": _spread(np.array(came.stalls.milliseconds)),
        "aims": [asdict(aim) for aim in aims],
        "verdict": "met" if all(aim.met for aim in aims) else "missed",
        "lines": [str(aim) for aim in aims],
    }


def _at_least(name: str, measured: float | None, limit: float) -> Aim:
    return Aim(name, _rounded(measured), limit, True, measured is not None and measured >= limit)


def _at_most(name: str, measured: float | None, limit: float) -> Aim:
    return Aim(name, _rounded(measured), limit, False, measured is not None and measured <= limit)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _percentile(values: np.ndarray, share: float) -> float | None:
    return round(float(np.percentile(values, share)), 3) if len(values) else None


def _spread(values: np.ndarray) -> dict[str, float | None]:
    named = {"p50": 50.0, "p99": 99.0, "p999": 99.9, "max": 100.0}
    return {name: _percentile(values, share) for name, share in named.items()}
