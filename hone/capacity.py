"""A measured capacity, as `hone bench capacity` writes it and `hone k8s render` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from hone.errors import HoneError
from hone.plan import Plan
from hone.records import Record, read_record


class Slo(Record):
    """What a service promises."""

    percentile: Literal["p50_ms", "p95_ms", "p99_ms", "p999_ms"] = "p99_ms"
    limit_ms: float = Field(gt=0)
    errors: float = Field(0.001, ge=0, lt=1, description="Largest share of requests that may fail.")


class Trial(Record):
    """One load at one rate."""

    rate: float = Field(description="Requests meant to arrive per second.")
    answered: float = Field(description="Requests answered without error, per second.")
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    mean_ms: float
    error_share: float
    late_share: float = Field(description="Share of requests that the generator itself started late.")
    cpu_cores: float | None = Field(None, description="Cores that the service kept busy; null for one elsewhere.")
    rss_mb: float | None = Field(None, description="Most resident memory of its processes together, MiB.")
    passed: bool


class Capacity(Record):
    """`capacity.json`: what a service was measured to hold. Written by `hone bench capacity`."""

    schema_version: Literal[1] = 1
    kind: Literal["capacity"] = "capacity"
    model: str = Field(description="The tag of what answered, as the service says.")
    digest: str | None = Field(None, description="Of its content, where the service says it.")
    image: str | None = Field(None, description="What was measured was this image; null for a service of the host.")
    plan: Plan | None = Field(None, description="How it was run; null for a service that doesn't say.")
    created: str
    host: dict[str, Any]
    command: str = Field(description="What measured it.")
    slo: Slo
    rows: int = Field(description="Rows in each request.")
    workers: int
    rate: float = Field(description="Requests per second at which most repeats met the limits.")
    rows_per_s: float
    spread: float = Field(description="(highest - lowest) / median of the percentile, over the repeats at that rate.")
    in_flight_rows: float = Field(description="Mean rows in flight at that rate: rate x mean latency x rows.")
    ready_s: float | None = Field(description="From start to ready; null for a service that was running already.")
    limited_by: Literal["service", "generator"] = Field(description="`generator`: the service may hold more.")
    repeats: list[Trial]
    search: list[Trial]

    @model_validator(mode="after")
    def _one_artifact(self) -> Capacity:
        if self.plan is not None and self.plan.digest != self.digest:
            raise ValueError(f"plan: is of {self.plan.digest[:12]}, what was measured is {(self.digest or '?')[:12]}")
        return self

    def require(self, tag: str, digest: str | None, file: Path) -> None:
        """Check that this is the capacity of an artifact.

        Args:
            tag: of the artifact.
            digest: of its content; None: it isn't compared.
            file: that the capacity is from, for messages.

        Raises:
            HoneError: it is of another.
        """
        again = f"measure that: hone bench capacity {tag} …"
        if self.model != tag:
            raise HoneError(f"{file}: was measured for {self.model}, not for {tag}; {again}")
        if digest and self.digest and self.digest != digest:
            raise HoneError(
                f"{file}: was measured for {tag} ({self.digest[:12]}), the stored one is {digest[:12]}; {again}"
            )

    @property
    def at_capacity(self) -> Trial:
        """The repeat in the middle."""
        passed = [trial for trial in self.repeats if trial.passed] or self.repeats
        return sorted(passed, key=lambda trial: getattr(trial, self.slo.percentile))[len(passed) // 2]

    def summary(self) -> str:
        """Return the result in a few lines, for the terminal."""
        trial = self.at_capacity
        lines = [
            f"{self.model}: {self.rate:,.0f} requests/s ({self.rows_per_s:,.0f} rows/s) with "
            f"{self.slo.percentile.removesuffix('_ms')} <= {self.slo.limit_ms:g} ms",
            f"p50 {trial.p50_ms:.2f} ms, p95 {trial.p95_ms:.2f} ms, p99 {trial.p99_ms:.2f} ms; "
            f"{sum(t.passed for t in self.repeats)} of {len(self.repeats)} repeats passed, spread {self.spread:.0%}",
        ]
        if trial.cpu_cores is not None:
            lines.append(
                f"{trial.cpu_cores:.2f} cores, {trial.rss_mb:.0f} MiB, {self.in_flight_rows:.1f} rows in flight"
            )
        if self.limited_by == "generator":
            lines.append("note: the load generator was the limit; the service may hold more. Run it on another host")
        return "\n".join(lines)


def read_capacity(file: Path) -> Capacity:
    """Read a `capacity.json`.

    Raises:
        HoneError: it is missing, or not one; a load report has no capacity in it.
    """
    return read_record(file, Capacity, "a measured capacity", "hone bench capacity MODEL --p99 50ms")
