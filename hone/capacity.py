"""A measured capacity, as `hone bench capacity` writes it and `hone k8s render` reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from hone.errors import HoneError
from hone.plan import Plan
from hone.records import Record, Verdict, read_record


class Slo(Record):
    """What a service promises."""

    percentile: Literal["p50_ms", "p95_ms", "p99_ms", "p999_ms"] = "p99_ms"
    limit_ms: float = Field(gt=0)
    errors: float = Field(0.001, ge=0, lt=1, description="Largest share of requests that may fail.")

    @property
    def allowed(self) -> float:
        """The share of requests that may be over the latency limit."""
        return {"p50_ms": 0.5, "p95_ms": 0.05, "p99_ms": 0.01, "p999_ms": 0.001}[self.percentile]

    @property
    def words(self) -> str:
        return f"{self.percentile.removesuffix('_ms')} <= {self.limit_ms:g} ms"


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
    passed: bool = Field(description="It met the limits, by its bounds or, where they don't tell, by its figures.")
    verdict: Verdict | None = Field(None, description="By bounds; null in files from before there were any.")
    duration_s: float = Field(0.0, description="Seconds of it that count.")
    warm_up_s: float = Field(0.0, description="Seconds that were left out at its start.")
    settled_s: float = Field(0.0, description="Seconds after which its own latencies settled (MSER-5).")
    took_s: float = Field(0.0, description="All of it, with its start.")
    asked_s: float = Field(0.0, description="Seconds that were asked for.")
    requests: int = Field(0, description="That count.")
    over: int = Field(0, description="Of these, over the latency limit or failed.")
    effect: float = Field(1.0, description="Requests that tell as much of `over` as one independent one.")
    failed: int = Field(0, description="Of these, failed.")
    failed_effect: float = Field(1.0, description="As `effect`, of `failed`.")
    goodput: float | None = Field(None, description="Requests answered within the limit, per second.")


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
    made_by: str = Field("", description="Version and commit of Hone.")
    slo: Slo
    rows: int = Field(description="Rows in each request.")
    workers: int
    rate: float = Field(description="Requests per second at which the limits are just met, as all trials together say.")
    rate_lower_95: float | None = Field(None, description="A rate that is below the capacity with 95 % confidence.")
    goodput: float | None = Field(None, description="Requests answered within the limit, per second, in the repeats.")
    rows_per_s: float
    spread: float = Field(description="(highest - lowest) / median of the percentile, over the repeats.")
    in_flight_rows: float = Field(description="Mean rows in flight in the repeats: rate x mean latency x rows.")
    ready_s: float | None = Field(description="From start to ready; null for a service that was running already.")
    limited_by: Literal["service", "generator"] = Field(description="`generator`: the service may hold more.")
    generator_limit: str = Field(
        "", description="The lowest rate that the generator could not hold, and why; empty: none."
    )
    open_question: str = Field("", description="What would prove a bound, or a higher one, in words; empty: nothing.")
    repeats: list[Trial] = Field(description="At `rate_lower_95`; where no rate was proven, at the last one tried.")
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
    def safe_rate(self) -> float:
        """The rate to plan with: what is proven, where something is."""
        return self.rate_lower_95 or self.rate

    @property
    def at_capacity(self) -> Trial:
        """The repeat in the middle."""
        passed = [trial for trial in self.repeats if trial.passed] or self.repeats
        return sorted(passed, key=lambda trial: getattr(trial, self.slo.percentile))[len(passed) // 2]

    def summary(self) -> str:
        """Return the result in a few lines, for the terminal."""
        trial = self.at_capacity
        lines = [
            f"{self.model}: {self.rate:,.0f} requests/s ({self.rows_per_s:,.0f} rows/s) with {self.slo.words}",
            *self._bound(),
            f"p50 {trial.p50_ms:.2f} ms, p95 {trial.p95_ms:.2f} ms, p99 {trial.p99_ms:.2f} ms; "
            f"{sum(t.passed for t in self.repeats)} of {len(self.repeats)} repeats passed, spread {self.spread:.0%}",
        ]
        if trial.cpu_cores is not None:
            lines.append(
                f"{trial.cpu_cores:.2f} cores, {trial.rss_mb:.0f} MiB, {self.in_flight_rows:.1f} rows in flight"
            )
        if self.limited_by == "generator":
            lines.append(f"note: {self.limit_words}")
        if self.open_question:
            lines.append(f"note: {self.open_question}")
        return "\n".join(lines)

    @property
    def limit_words(self) -> str:
        """Where the generator was the limit: at which rate, what was proven up to then, and what to do."""
        proven = "nothing" if self.rate_lower_95 is None else f"{self.rate_lower_95:,.0f}/s"
        why = f": {self.generator_limit}; {proven} was proven up to then" if self.generator_limit else ""
        return f"the load generator was the limit{why}; the service may hold more. Run it on another host"

    def _bound(self) -> list[str]:
        if self.rate_lower_95 is None:
            return []
        goodput = f"; there {self.goodput:,.0f}/s were answered in time" if self.goodput is not None else ""
        return [f"at least {self.rate_lower_95:,.0f}/s with 95 % confidence{goodput}"]


def read_capacity(file: Path) -> Capacity:
    """Read a `capacity.json`.

    Raises:
        HoneError: it is missing, or not one; a load report has no capacity in it.
    """
    return read_record(file, Capacity, "a measured capacity", "hone bench capacity MODEL --p99 50ms")
