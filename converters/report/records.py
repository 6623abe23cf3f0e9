"""The report of a run as typed records: what `report.json` holds. Documented in docs/report.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hone.artifact import Latency
from hone.recipe import Budget
from hone.records import Verdict, read_record

from ..proof.disturbance import HostNoise
from ..proof.race.referee import OUT_OF_TIME

SCHEMA_VERSION = 1


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Percentiles(_Record):
    """Latency of one call in milliseconds, and rows per second."""

    p50: float
    p50_low: float | None = None
    p50_high: float | None = None
    p95: float
    p99: float
    mean: float
    rows_per_s: float
    calls: int
    turns: int | None = Field(None, description="In which it was timed; null in older reports.")
    joules_per_1000_rows: float | None = None


class PassReport(_Record):
    """One pass of a variant's chain."""

    name: str
    options: dict[str, Any]
    seconds: float
    cached: bool
    details: dict[str, Any]


class ClaimReport(_Record):
    """A limit of the budget beside the first metric's, and what the evaluation rows say of it."""

    what: str
    loss: float | None
    loss_upper: float | None
    allowed: float
    problem: str = Field("", description="Why it has no bounds.")


class FragilityReport(_Record):
    """What one kind of disturbance at one severity costs a variant."""

    kind: str
    severity: int
    rows: int
    source: float | None = Field(description="The source's score on the disturbed rows.")
    loss: float | None
    loss_lower: float | None
    loss_upper: float | None
    allowed: float | None = Field(description="null: the budget has no limit on it.")
    problem: str = Field("", description="Why it has no bounds.")


class VariantReport(_Record):
    """One variant: measured, skipped on this host, failed, or made but not measured in the time that there was."""

    name: str
    status: Literal["built", "skipped", "failed", "unproven"]
    baseline: bool = False
    reason: str = Field("", description="Why it won, lost, was skipped or failed; one line.")
    remedy: str = Field("", description="For a skipped variant: what builds it.")
    runtime: str = ""
    precision: str = ""
    remark: str = Field("", description="What is to be known of all models of its runtime; empty for most.")
    stopped: str = Field("", description="Why it was not measured in full; empty when it was.")
    evaluated_rows: int | None = Field(None, description="That it answered; null in older reports.")
    tag: str | None = Field(None, description="Its tag in the model store; null when it was not stored.")
    digest: str | None = None
    rank: int | None = None
    eligible: bool = False
    pareto: bool = False
    tied: bool = Field(False, description="The objective can't tell it from the winner.")
    verdict: Verdict | None = Field(None, description="On all limits of the budget; null in older reports.")
    loss: float | None = Field(None, description="Of the first metric against the source, as quality_drop.")
    loss_lower: float | None = Field(None, description="The loss is at least this.")
    loss_upper: float | None = Field(None, description="The loss is at most this; it allows for the other variants.")
    level: float | None = Field(None, description="Confidence of loss_upper by itself; null in older reports.")
    loss_allowed: float | None = Field(None, description="By the budget, in the metric's unit.")
    confidence: float | None = Field(None, description="Of the bounds and of the verdicts of all variants together.")
    rows_to_decide: int | None = Field(None, description="About how many rows would; null where it is decided.")
    worst_class: str | None = None
    worst_class_loss: float | None = Field(None, description="Of the share that is right among that class's rows.")
    worst_slice: str | None = None
    worst_slice_loss: float | None = None
    claims: list[ClaimReport] = Field(default_factory=list, description="The budget's other limits on answers.")
    disturbed: list[FragilityReport] = Field(
        default_factory=list, description="What it loses on rows that are disturbed alike for it and the source."
    )
    quality: float | None = None
    quality_drop: float | None = None
    max_difference: float | None = None
    mean_difference: float | None = None
    rows_per_s_batch1: float | None = Field(None, description="At batch 1 and the budget's thread count.")
    speedup: float | None = Field(None, description="Rows/s at the budget's conditions over the source's best.")
    size_mb: float | None = None
    peak_rss_mb: float | None = None
    load_ms: float | None = None
    latency_ms: dict[str, dict[str, Percentiles]] = Field(
        default_factory=dict, description="By batch size, then thread count; 'all' is every core of the host."
    )
    time_by_operator: dict[str, float] = Field(
        default_factory=dict, description="Shares of its time of the operators that take most; empty: not profiled."
    )
    findings: list[str] = Field(default_factory=list, description="What keeps it from being faster, a line each.")
    passes: list[PassReport] = Field(default_factory=list)

    @property
    def outcome(self) -> Verdict:
        """The verdict; of an older report what `eligible` tells of it."""
        return self.verdict or ("met" if self.eligible else "missed")

    @property
    def interval(self) -> str:
        """What it may lose, in words; empty where that has no bounds."""
        if self.loss_lower is None or self.loss_upper is None:
            return ""
        return f"a loss between {self.loss_lower:.4f} and {self.loss_upper:.4f}"


class CandidateReport(_Record):
    """A preset that `variants: auto` may stand for, and why it was made or left out."""

    name: str
    chosen: bool
    reason: str = Field(description="What it may gain, or why it was left out; one line.")
    tried: bool = Field(False, description="It answered some calibration rows before the proof.")
    ms: float | None = Field(None, description="Of a call in its trial, roughly.")
    size_mb: float | None = None
    loss: float | None = Field(None, description="Distance to the float graph's answers, in the metric's unit.")


class Report(_Record):
    """A whole run of `hone optimize`."""

    schema_version: Literal[1] = 1
    kind: Literal["optimize"] = "optimize"
    name: str
    run: str
    created: str
    recipe: str
    recipe_sha256: str
    source: str
    metric: str
    higher_is_better: bool
    objective: str
    budget: Budget
    evaluation_rows: int
    host: dict[str, Any]
    tools: dict[str, str]
    seconds: float
    winner: str | None
    safest: str | None = Field(None, description="Where none is proven: the one that may lose least.")
    selection_rows: int = Field(0, description="Rows that a search chose by; the proof has none of them.")
    source_threads: str = Field("", description="Where the source was fastest: what speed-ups compare with.")
    noise: HostNoise | None = None
    energy: str = Field("", description="Whose counters energies are from, or why this host tells none.")
    checks_skipped: str = Field("", description="Why the recipe leaves the checks of its metric out.")
    not_stored: str = Field("", description="Why what should have been stored was not.")
    variants: list[VariantReport]
    chosen_by: list[str] = Field(default_factory=list, description="What `variants: auto` looked at; else empty.")
    candidates: list[CandidateReport] = Field(default_factory=list, description="Of `variants: auto`; else empty.")

    @property
    def left_out(self) -> list[CandidateReport]:
        """What was tried and had no chance."""
        return [one for one in self.candidates if one.tried and not one.chosen]

    def variant(self, name: str) -> VariantReport:
        return next(variant for variant in self.variants if variant.name == name)

    @property
    def undecided(self) -> str:
        """Where no variant is proven: which is the safest, and what would decide, in words."""
        if self.safest is None:
            return ""
        found = self.variant(self.safest)
        bound = f" ({found.interval}, and {found.loss_allowed:.4g} is allowed)" if found.interval else ""
        rows = "no number of rows like these would decide"
        if found.rows_to_decide:
            rows = f"about {found.rows_to_decide:,} rows like these would decide"
        elif not found.interval or any(claim.problem for claim in found.claims):
            rows = f"it can't be told: {found.reason}"
        elif found.loss_allowed == 0:
            rows = "no number of rows proves that nothing at all is lost: allow a little"
        kept = f"; it is kept as {found.tag}" if found.tag else ""
        return (
            f"no variant is proven to meet the budget by {self.evaluation_rows} evaluation rows; the safest is "
            f"{found.name}{bound}, and {rows}{kept}"
        )

    @property
    def unproven(self) -> list[str]:
        """Variants that were made, and not measured in the time that there was."""
        return [variant.name for variant in self.variants if variant.status == "unproven"]

    @property
    def cut_short(self) -> str:
        """What the time limit of the proof has cost, in words; empty where there was time for all."""
        if self.unproven:
            return (
                f"the time for the proof was over: {', '.join(self.unproven)} not proven, nothing is known of them; "
                "passes are kept, so that a run with more --minutes begins with the proof"
            )
        hasty = [variant.name for variant in self.variants if variant.stopped.startswith(OUT_OF_TIME)]
        return f"the time for the proof was over: {', '.join(hasty)} timed in fewer turns" if hasty else ""

    @property
    def compared_with(self) -> str:
        """What the speed-ups compare with, in words."""
        if not self.source_threads:
            return f"speed-up against {self.source}"
        best, at = self.judged(self.baseline, self.source_threads), self.judged(self.baseline)
        words = f"{self.source_threads} thread{'' if self.source_threads == '1' else 's'}"
        own = "" if best.p50 == at.p50 else f" ({best.p50:.3f} ms; {self.budget.at.threads}: {at.p50:.3f} ms)"
        return f"speed-up against {self.source} at its fastest, {words}{own}"

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before trusting the figures, a line each."""
        lines = [self.noise.warning] if self.noise and self.noise.warning else []
        if self.cut_short:
            lines.append(self.cut_short)
        if self.undecided:
            lines.append(self.undecided)
        if self.checks_skipped:
            lines.append(f"the recipe skips the checks of its metric: {self.checks_skipped}")
        for one in self.variants:
            if one.remark and not one.baseline:
                at, p50 = self.budget.at.batch, self.judged(one).p50
                lines.append(f"{one.name} is {one.remark}: {p50:.3f} ms for {f'{at} rows' if at > 1 else 'a row'}")
        return lines

    def judged(self, variant: VariantReport, threads: str = "") -> Percentiles:
        """Return a variant's latency at the budget's batch size, at its thread count or another."""
        return variant.latency_ms[str(self.budget.at.batch)][threads or str(self.budget.at.threads)]

    @property
    def baseline(self) -> VariantReport:
        return next(variant for variant in self.variants if variant.baseline)


def latency_table(latencies: tuple[Latency, ...], threads: dict[str, int]) -> dict[str, dict[str, Percentiles]]:
    """Return latencies by batch size and thread count.

    Args:
        latencies: as measured.
        threads: what the recipe calls each thread count ('1', 'all'), and what it was on this host.
    """
    table: dict[str, dict[str, Percentiles]] = {}
    for latency in latencies:
        turns = len(latency.rounds) or None
        values = Percentiles(**latency.model_dump(exclude={"batch", "threads", "rounds"}), turns=turns)
        for name, count in threads.items():
            if count == latency.threads:
                table.setdefault(str(latency.batch), {})[name] = values
    return table


def read_report(file: Path) -> Report:
    """Read a `report.json`.

    Raises:
        HoneError: it is missing, or not one.
    """
    return read_record(file, Report, f"a report of hone optimize, version {SCHEMA_VERSION}", "hone optimize RECIPE")
