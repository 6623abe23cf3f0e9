"""What a look at a model's quality found, metric by metric, and what is to be done about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from hone.evidence.live.quality import State

EXIT: dict[State, int] = {"holds": 0, "act": 3, "undecided": 4, "warn": 5}
ORDER: tuple[State, ...] = ("act", "warn", "undecided", "holds")


@dataclass(frozen=True)
class Interval:
    """A figure with its bounds.

    Attributes:
        value, low, high: of it.
        rows: labeled requests that it is of.
        first, last: when the first and the last of them were answered, ISO 8601.
    """

    value: float
    low: float
    high: float
    rows: int
    first: str = ""
    last: str = ""


@dataclass(frozen=True)
class Measured:
    """A metric of labeled answers beside the proof's.

    Attributes:
        metric: name.
        higher_is_better: False for errors.
        look: `short`, the newest few hundred labeled requests, or `long`, some thousands.
        state: what is to be done.
        live: the metric of these requests.
        proof: of the rows of the proof.
        loss, loss_low, loss_high: how much worse live is, as a share of the proof's figure; negative: better.
        needed: labeled requests that would decide; None: it is decided, or too near to tell.
        over_time: the metric of parts of the time.
    """

    metric: str
    higher_is_better: bool
    look: str
    state: State
    live: Interval
    proof: Interval
    loss: float
    loss_low: float
    loss_high: float
    needed: int | None = None
    over_time: tuple[Interval, ...] = ()

    def describe(self) -> str:
        worse = f"{abs(self.loss):.1%} {'worse' if self.loss > 0 else 'better'}"
        return (
            f"{self.metric} {self.live.value:.4g} ({self.live.low:.4g} to {self.live.high:.4g}), the proof's is "
            f"{self.proof.value:.4g}: {worse}, {self.loss_low:+.1%} to {self.loss_high:+.1%} lost"
        )


@dataclass(frozen=True)
class Expected:
    """What is to be expected by how sure the model is: an estimate, made without labels.

    Attributes:
        live: what is expected of the newest answers.
        proof: the metric on the rows of the proof.
        loss, loss_low, loss_high: as of `Measured`.
        state: warn, holds or undecided; an estimate is no reason to act.
        metric: that it is of.
    """

    live: Interval
    proof: Interval
    loss: float
    loss_low: float
    loss_high: float
    state: State
    metric: str = "accuracy"

    def describe(self) -> str:
        return (
            f"estimate without labels: {self.metric} {self.live.value:.3f} "
            f"({self.live.low:.3f} to {self.live.high:.3f}) "
            f"is to be expected of {self.live.rows:,} answers by the model's confidence; {self.proof.value:.3f} on the "
            "proof's rows"
        )


@dataclass(frozen=True)
class Quality:
    """What was found of a model.

    Attributes:
        model: tag.
        checked: ISO 8601, UTC.
        warn, act: losses, as shares of the proof's figure, from which people are warned, and something is done.
        confidence: of the bounds.
        answers: requests that were looked through, the newest first, until there were enough labels.
        labeled: of them those with a label that can be read.
        measured: metrics, the most important finding first.
        estimates: without labels, by metric, accuracy first; none where there is nothing to tell them by.
        problems: what couldn't be read, or why something is missing.
    """

    model: str
    checked: str
    warn: float
    act: float
    confidence: float
    answers: int
    labeled: int
    measured: tuple[Measured, ...] = ()
    estimates: tuple[Expected, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def expected(self) -> Expected | None:
        """The estimate that is told first: one that warns, else of accuracy."""
        return next((one for one in self.estimates if one.state == "warn"), next(iter(self.estimates), None))

    @property
    def state(self) -> State:
        """What labels say; where they don't decide, the estimate may warn."""
        found = min((ORDER.index(one.state) for one in self.measured), default=ORDER.index("undecided"))
        if ORDER[found] == "undecided" and self.expected is not None and self.expected.state == "warn":
            return "warn"
        return ORDER[found]

    def headline(self) -> str:
        """Return the result in one line."""
        if self.measured:
            worst = min(self.measured, key=lambda one: (ORDER.index(one.state), -one.loss_low))
            if self.state == worst.state:
                more = f"; about {worst.needed:,} labeled requests would decide" if worst.needed else ""
                return f"{worst.state}: {worst.describe()}{more if worst.state == 'undecided' else ''}"
        if self.expected is not None:
            return f"{self.state}: {self.expected.describe()}"
        return f"undecided: {self.labeled:,} of {self.answers:,} answers have labels"

    def as_json(self) -> dict[str, Any]:
        accuracy = asdict(self.estimates[0]) if self.estimates else None
        return {"state": self.state, "headline": self.headline(), **asdict(self), "expected": accuracy}
