"""What a load test found, as typed records: `load.json`. Documented in docs/load-report.md."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from hone.records import Record, Verdict, read_record

from .scenarios import Scenario

SCHEMA_VERSION = 1
LATE_MS = 1.0
LATE_SHARE = 0.05
CPU_SHARE = 0.8
"""Above one of these, the generator's own load is part of the latencies: the run is void."""


FIGURES = (
    "rate", "rows_per_s", "p50_ms", "p90_ms", "p95_ms", "p99_ms", "p999_ms", "mean_ms", "max_ms",
)  # fmt: skip
"""What a void run has none of."""
RateSource = Literal[
    "given", "half of the probed capacity", "a share of the probed capacity", "closed loop", "recorded"
]


class Second(Record):
    """One second of the measurement."""

    second: int
    requests: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None


class Answers(Record):
    """Answers that were computed again by the artifact, in the process of the load test."""

    compared: int
    wrong: int
    reason: str = Field("", description="Why none were compared, or what is wrong with one, in words.")

    def __str__(self) -> str:
        if not self.compared:
            return f"answers were not checked: {self.reason}"
        if self.wrong:
            return f"{self.wrong} of {self.compared} answers that were checked are wrong: {self.reason}"
        return f"{self.compared} answers were checked against the artifact: all are its own"


class Check(Record):
    """One thing that the run was judged by."""

    name: str = Field(description="The field that was judged, or `error_share`.")
    measured: float
    limit: float = Field(description="The most that is allowed; of `rate`, the least.")
    against: Literal["limit", "baseline"]
    met: bool = Field(description="By the figure.")
    verdict: Verdict | None = Field(None, description="By bounds, at 95 % confidence; null: the figure decides.")
    requests_to_decide: int | None = Field(None, description="Of an undecided one; null: it is too near to its limit.")

    @property
    def decision(self) -> Verdict:
        return self.verdict or ("met" if self.met else "missed")

    @property
    def words(self) -> str:
        """What was measured and allowed, and of an undecided check what would decide it."""
        if self.decision != "undecided":
            return str(self)
        wanted = self.requests_to_decide
        return f"{self}: " + (f"about {wanted:,} requests would decide" if wanted else "too near to be decided")

    def __str__(self) -> str:
        side = "least" if self.name == "rate" else "most"
        source = "" if self.against == "limit" else ", by the baseline"
        return f"{self.name} {self.measured:g}, at {side} {self.limit:g} allowed{source}"


class Generator(Record):
    """How the generator did: whether what it measured can be the service's."""

    cpu_share: float = Field(description="Of a core, in the sender's process; of the busiest where there were several.")
    late_p99_ms: float = Field(description="99th percentile of how late it started a request.")
    void: str | None = Field(None, description="Why the run says nothing of the service; null when it does.")
    senders: int = Field(1, description="Processes that sent.")


@dataclass(frozen=True)
class Sent:
    """What the senders of a run noted, a value a request.

    Attributes:
        intended, started, ended: seconds from the start.
        rows: in the request.
        kinds: place of its error in `words`; 0: none.
        words: of the errors.
        cpu_share: of a core, of the busiest sender.
        senders: processes.
        interrupted: the run was ended before its time.
    """

    intended: np.ndarray
    started: np.ndarray
    ended: np.ndarray
    rows: np.ndarray
    kinds: np.ndarray
    words: tuple[str, ...] = ("",)
    cpu_share: float = 0.0
    senders: int = 1
    interrupted: bool = False

    def after(self, moment: float) -> Sent:
        """Return the requests that were meant to start from a moment on."""
        counted = self.intended >= moment
        columns = {name: getattr(self, name)[counted] for name in ("intended", "started", "ended", "rows", "kinds")}
        return replace(self, **columns)


class LoadReport(Record):
    """A whole load test."""

    schema_version: Literal[1] = 1
    kind: Literal["load"] = "load"
    model: str = Field(description="The tag of what answered, as the service says.")
    digest: str | None = Field(None, description="Of its content, where the service says it.")
    url: str
    created: str
    scenario: Scenario
    rate_source: RateSource
    protocol: str = Field("json", description="What the requests were sent in.")
    probed_capacity: float | None = Field(None, description="Requests per second that the probe reached.")
    host: dict[str, Any]
    duration_s: float
    requests: int
    errors: int
    errors_by_kind: dict[str, int]
    rate: float | None = Field(description="Requests answered without error, per second; null in a void run.")
    rows_per_s: float | None
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    mean_ms: float | None
    max_ms: float | None
    late_share: float = Field(description="Share of requests that the generator itself started over 1 ms late.")
    generator: Generator | None = Field(None, description="Null in reports from before it was recorded.")
    interrupted: bool = Field(False, description="Ended before its time: these are the figures until then.")
    distinct_rows: int | None = Field(None, description="Different rows that were sent.")
    rows_from: str = Field("", description="Where the rows are from, in words.")
    sizes: list[tuple[int, int]] = Field([], description="(rows in a request, requests).")
    cache_hit_ratio: float | None = Field(
        None, description="Of the service's prediction cache, by its metrics; null where it is off or doesn't say."
    )
    checked: Answers | None = Field(None, description="Answers compared with the artifact's; null: none were.")
    histogram: list[tuple[float, int]] = Field(description="(upper bound in ms, requests), bounds 10 % apart.")
    timeline: list[Second]
    checks: list[Check] = Field(default_factory=list)
    intervals: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="What p50_ms, p95_ms, p99_ms and rate are between, with 95 % confidence."
    )

    @property
    def void(self) -> str:
        """Why the run says nothing of the service; empty when it does."""
        if self.generator is None:
            return ""
        return self.generator.void or ""

    @property
    def late(self) -> bool:
        """True in a report from before runs were void, when its generator was too busy."""
        return self.generator is None and self.late_share > LATE_SHARE

    @property
    def missed(self) -> list[Check]:
        return [check for check in self.checks if check.decision == "missed"]

    @property
    def undecided(self) -> list[Check]:
        return [check for check in self.checks if check.decision == "undecided"]

    def summary(self) -> str:
        """Return the result in a few lines, for the terminal."""
        lines = [
            f"{self.model}: {self.requests} requests in {self.duration_s:.0f} s, {self.errors} errors",
            *self._figures(),
            *(f"  {count} x {kind}" for kind, count in self.errors_by_kind.items()),
        ]
        if self.checked is not None:
            lines.append(str(self.checked))
        if self.cache_hit_ratio is not None:
            lines.append(f"the service's cache answered {self.cache_hit_ratio:.0%}: latencies are its own, in part")
        if self.interrupted:
            lines.append(f"ended before its time: of {self.scenario.duration_s:g} s, these are the figures until then")
        if self.late:
            lines.append(
                f"warning: the generator started {self.late_share:.0%} of the requests late, over {LATE_SHARE:.0%}: "
                "these latencies are partly its own; lower the rate, or run it on another host"
            )
        return "\n".join(lines)

    def _figures(self) -> list[str]:
        if self.void or self.rate is None or self.p50_ms is None:
            return [f"void, no figures ({self.load}): {self.void}"]
        return [
            f"{self.rate:,.0f} requests/s, {self.rows_per_s:,.0f} rows/s ({self.load})",
            f"p50 {self.p50_ms:.2f} ms, p95 {self.p95_ms:.2f} ms, p99 {self.p99_ms:.2f} ms, max {self.max_ms:.1f} ms",
        ]

    @property
    def load(self) -> str:
        """The load in words, with where its rate is from."""
        source = f", {self.rate_source}" if "capacity" in self.rate_source else ""
        protocol = "" if self.protocol == "json" else f", {self.protocol}"
        return f"{self.scenario.words}{source}{protocol}"


def read_load_report(file: Path) -> LoadReport:
    """Read a `load.json`.

    Raises:
        HoneError: it is missing, or not one.
    """
    return read_record(file, LoadReport, f"a load report, version {SCHEMA_VERSION}", "hone bench MODEL")
