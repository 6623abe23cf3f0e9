"""What is known of an experiment at a moment, as a record: the terminal, JSON and the page are drawn from it."""

from __future__ import annotations

from typing import Literal

from hone.records import Record

Outcome = Literal["winner", "control", "equal", "undecided", "invalid"]
WORDS = {
    "winner": "a variant wins",
    "control": "the control wins",
    "equal": "no variant is better by what matters",
    "undecided": "not decided yet",
    "invalid": "not to be believed",
}


class Row(Record):
    """An arm beside the control, by one metric.

    Attributes:
        arm: name.
        mean: of the figures; None: there are none.
        counts: of them: answers, or for errors and p99 requests.
        units: callers or requests that they are of.
        difference: from the control's mean; None for the control.
        low, high: what it is between, at every moment; None: too little is known.
        relative: the difference over the control's mean.
        cost: times that the interval is as long as equal shares would have made it.
    """

    arm: str
    mean: float | None
    counts: int
    units: int
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    relative: float | None = None
    cost: float | None = None


class Compared(Record):
    """All arms by one metric.

    Attributes:
        metric: name.
        better: higher or lower.
        rows: the control first.
        problem: why nothing is known; empty: it is.
    """

    metric: str
    better: str
    rows: tuple[Row, ...] = ()
    problem: str = ""


class Guarded(Record):
    """What a guardrail says of a variant.

    Attributes:
        metric, arm: what of whom.
        state: broken, kept, undecided, or unknown.
        told: in words.
    """

    metric: str
    arm: str
    state: Literal["broken", "kept", "undecided", "unknown"]
    told: str


class ArmRow(Record):
    """What an arm has done.

    Attributes:
        name, version, weight: percent now.
        requests, errors: that were dealt to it, in all services.
        p99_ms: of its answers.
        units: callers or requests with kept answers; None: none are kept.
    """

    name: str
    version: str
    weight: float
    requests: int
    errors: int
    p99_ms: float | None
    units: int | None


class Dealt(Record):
    """Whether callers or requests were dealt to the arms by their weights."""

    state: Literal["as meant", "not as meant", "unknown"]
    told: str


class Report(Record):
    """An experiment at a moment.

    Attributes:
        model: name.
        experiment: its id.
        status: starting, running, stopping or stopped.
        at: ISO 8601, UTC.
        ran_s: for how long it has run.
        services: addresses.
        unit: what was dealt: caller or request.
        sticky: header that callers are told apart by.
        bandit: weights follow what is known.
        arms: the control first.
        metric: that decides.
        compared: that metric first.
        confidence: that no interval of that metric is ever wrong, all variants together.
        dealt: a check of what was dealt.
        guards: of each variant.
        outcome: what is decided.
        winner: arm; empty: none.
        told: the outcome in a line.
        missing: units that would decide it, differences staying as they are; None: not known, or not in sight.
        planned: units.
        notes: what a reader should know.
        answer: arm that gets all requests since it ended.
        why_ended: in words.
    """

    schema_version: Literal[1] = 1
    model: str
    experiment: str
    status: str
    at: str
    ran_s: float
    services: tuple[str, ...]
    unit: Literal["caller", "request"]
    sticky: str
    bandit: bool
    arms: tuple[ArmRow, ...]
    metric: str
    compared: tuple[Compared, ...]
    confidence: float
    dealt: Dealt
    guards: tuple[Guarded, ...]
    outcome: Outcome
    winner: str = ""
    told: str
    missing: int | None = None
    planned: int
    notes: tuple[str, ...] = ()
    answer: str = ""
    why_ended: str = ""

    @property
    def broken(self) -> tuple[Guarded, ...]:
        return tuple(guard for guard in self.guards if guard.state == "broken")

    @property
    def is_decided(self) -> bool:
        return self.outcome in ("winner", "control", "equal")


def number(value: float | None, digits: int = 4) -> str:
    """Return a number as a reader wants it."""
    return "-" if value is None else f"{value:,.{digits}g}" if abs(value) < 10**digits else f"{value:,.0f}"


def signed(value: float | None) -> str:
    return "-" if value is None else f"{'+' if value >= 0 else '-'}{number(abs(value), 3)}"


def between(row: Row) -> str:
    """Return an interval in words."""
    return "too few yet" if row.low is None or row.high is None else f"{signed(row.low)} to {signed(row.high)}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:+.1f} %"


def span(seconds: float) -> str:
    """Return a span of time in its largest unit."""
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
