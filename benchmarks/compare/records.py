"""What a comparison found: `compare.json`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hone.evidence.turns import Outcome
from hone.records import Record

from ..scenarios import Scenario

FIGURES = ("p50_ms", "p95_ms", "p99_ms", "s_per_request", "cpu_ms")
"""All are times: less is faster. `s_per_request` is 1 / rate; `cpu_ms` is what the service's processes worked for a
request, where they run on this host."""


class Side(Record):
    """One of the two services."""

    model: str
    digest: str | None
    url: str


class Turn(Record):
    """One turn: A, B and A again, in an order that changes."""

    order: list[str]
    a: dict[str, float]
    b: dict[str, float]
    control: dict[str, float] = Field(description="A again.")


class Ratio(Record):
    """B's figure over A's."""

    figure: str
    ratio: float
    low: float = Field(description="Of the interval at 99 % confidence: Student's t on logarithms, paired by turn.")
    high: float
    smallest: float = Field(description="Share by which they must differ to be told apart nine times in ten.")
    control: tuple[float, float] = Field(description="Interval of A over itself.")
    verdict: Outcome


class Comparison(Record):
    """A whole comparison."""

    schema_version: Literal[1] = 1
    kind: Literal["comparison"] = "comparison"
    created: str
    host: dict[str, Any]
    command: str = Field("", description="What compared them.")
    made_by: str = Field("", description="Version and commit of Hone.")
    a: Side
    b: Side
    scenario: Scenario
    by: str = Field(description="The figure that the verdict is on.")
    interrupted: bool = False
    busy: int = Field(0, description="Loads in which the generator was too busy for times to be the services' alone.")
    turns: list[Turn]
    ratios: list[Ratio]

    @property
    def ratio(self) -> Ratio:
        return next(ratio for ratio in self.ratios if ratio.figure == self.by)

    @property
    def disturbed(self) -> bool:
        """True when A differs from itself beyond doubt."""
        low, high = self.ratio.control
        return not low <= 1 <= high

    def summary(self) -> str:
        """Return the result in a few lines, for the terminal."""
        lines = [
            f"A {self.a.model} at {self.a.url}, B {self.b.model} at {self.b.url}: {len(self.turns)} turns",
            *(
                f"{ratio.figure}: B / A {ratio.ratio:.3f} ({ratio.low:.3f} to {ratio.high:.3f}), "
                f"A / A {ratio.control[0]:.3f} to {ratio.control[1]:.3f}"
                for ratio in self.ratios
            ),
            *([f"note: the generator was too busy in {self.busy} loads: it hides differences"] if self.busy else []),
            self._verdict(),
        ]
        return "\n".join(lines)

    def _verdict(self) -> str:
        ratio = self.ratio
        if self.disturbed:
            return "can't tell: A differs from itself, something disturbed the turns"
        if ratio.verdict == "can't tell":
            return f"can't tell: by {self.by}, a difference under {ratio.smallest:.1%} would not be seen in these turns"
        return f"B is {ratio.verdict}: {self.by} {ratio.ratio - 1:+.1%}, {ratio.low - 1:+.1%} to {ratio.high - 1:+.1%}"
