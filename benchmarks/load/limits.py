"""Limits of a load test: what it may take, how much may fail, how far it may be from another run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hone.errors import HoneError, LimitError, UndecidedError

from ..records import Check, LoadReport
from ..scenarios import Scenario
from .target import Target

MAX_ERRORS = 0.01
COMPARED = ("p50_ms", "p95_ms", "p99_ms", "rate")


@dataclass(frozen=True)
class Limits:
    """What a run may not exceed.

    Attributes:
        ms: by percentile field (`p99_ms`), in milliseconds.
        errors: share of requests that may fail; None: nobody asked, and 1 % is a safety net.
    """

    ms: dict[str, float] = field(default_factory=dict)
    errors: float | None = None

    @property
    def most_errors(self) -> float:
        return MAX_ERRORS if self.errors is None else self.errors


@dataclass(frozen=True)
class Baseline:
    """Another run, and how much worse this one may be: a share of each figure."""

    report: LoadReport
    tolerance: float

    def require_same(self, target: Target, scenario: Scenario, protocol: str = "json") -> None:
        """Raise HoneError unless a run of this load on this model can be compared with it."""
        name = self.report.model.partition(":")[0]
        if name != target.name:
            raise HoneError(f"--baseline is of {self.report.model}, not of {target.tag}: they can't be compared")
        if self.report.void:
            raise HoneError(f"--baseline is void: {self.report.void}; there is nothing to compare with")
        if self.report.protocol != protocol:
            raise HoneError(f"--baseline was sent in {self.report.protocol}, not in {protocol}; give that --protocol")
        then = self.report.scenario
        for field_name in ("kind", "arrival", "rate", "users", "rows", "sizes"):
            before, now = getattr(then, field_name), getattr(scenario, field_name)
            if before != now:
                raise HoneError(
                    f"--baseline was another load: {field_name} {before}, not {now}; leave --rate, --users, --rows "
                    "and what else shapes it out to repeat it"
                )


def judge(measured: dict[str, Any], limits: Limits) -> list[Check]:
    """Return a check for each limit.

    Args:
        measured: of `benchmarks.measures.measure`.
        limits: what it is judged by.
    """
    share, most = round(measured["errors"] / measured["requests"], 6), limits.most_errors
    checks = [
        Check(name=name, measured=measured[name], limit=limit, against="limit", met=measured[name] <= limit)
        for name, limit in limits.ms.items()
    ]
    errors = Check(name="error_share", measured=share, limit=most, against="limit", met=share <= most)
    return [*checks, errors]


def compare(measured: dict[str, Any], baseline: Baseline) -> list[Check]:
    """Return a check for each figure that must not be worse than the baseline's by more than the tolerance."""
    checks = []
    for name in COMPARED:
        least = name == "rate"
        limit = getattr(baseline.report, name) * (1 - baseline.tolerance if least else 1 + baseline.tolerance)
        met = measured[name] >= limit if least else measured[name] <= limit
        checks.append(Check(name=name, measured=measured[name], limit=round(limit, 4), against="baseline", met=met))
    return checks


def require_met(report: LoadReport) -> None:
    """Judge a run.

    Raises:
        LimitError: it missed limits; the message names every one.
        UndecidedError: it is too short to tell of some.
        HoneError: it is void, and says nothing of them.
    """
    if report.void:
        busy = report.checked is None or not report.checked.wrong
        hint = "; lower --rate, let the machine do less beside it, or allow it: --max-late" if busy else ""
        raise HoneError(f"the run is void: {report.void}{hint}")
    if report.missed:
        raise LimitError("missed: " + "; ".join(map(str, report.missed)))
    if report.undecided:
        wanting = "; ".join(check.words for check in report.undecided)
        raise UndecidedError(f"undecided: {wanting}; give a longer --duration")


def parse_ms(text: str) -> float:
    """Return a duration such as `50ms`, `0.2s` or `50` in milliseconds.

    Raises:
        HoneError: it is none.
    """
    number, unit = text.strip().lower(), 1.0
    for ending, factor in (("ms", 1.0), ("s", 1000.0)):
        if number.endswith(ending):
            number, unit = number[: -len(ending)], factor
            break
    value = _number(number) * unit
    if not 0 < value < float("inf"):
        raise HoneError(f"'{text}' is no duration; write 50ms or 0.2s")
    return value


def parse_share(text: str, most: float = 1.0) -> float:
    """Return a share such as `1%` or `0.01`.

    Args:
        text: a number over 1 needs its %, so that a forgotten one doesn't pass for a hundred times as much.
        most: that is allowed.

    Raises:
        HoneError: it is none, or over what is allowed.
    """
    number = text.strip()
    percent = number.endswith("%")
    value = _number(number[:-1]) / 100 if percent else _number(number)
    if not 0 <= value <= (most if percent else 1):
        raise HoneError(f"'{text}' is no share; write 1% or 0.01")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return -1.0
