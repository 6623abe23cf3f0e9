"""What a profile says: the content of `profile.json`, and the part of it that a run's report has."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from hone.records import Record


class OperatorTime(Record):
    """All nodes of one type."""

    operator: str
    where: str = Field(description="What computed it: an execution provider, a device.")
    ms: float = Field(description="Of a batch without the profiler, shared out by what the profiler saw.")
    share: float = Field(description="Of the time of all operators.")
    nodes: int


class NodeShare(Record):
    """One node."""

    name: str
    operator: str
    where: str
    kernel: str = Field("", description="Types of its inputs, or the name of what computed it.")
    ms: float
    share: float
    calls: float = Field(description="In one batch.")


class ProfileFinding(Record):
    """One reason for time that is spent, and what to do about it."""

    kind: Literal[
        "float_kernel", "left_in_float", "quantizing", "unfused", "moved", "casts", "layout", "reference", "host",
        "outside",
    ]  # fmt: skip
    what: str = Field(description="In one line.")
    share: float | None = Field(None, description="Of the time of all operators, that it is about; outside: of a call.")
    nodes: tuple[str, ...] = Field((), description="The first of those that it was seen at, by name.")
    remedy: str = ""

    @property
    def line(self) -> str:
        share = "" if self.share is None else f"{self.share:.0%} of the time: "
        return f"{share}{self.what}{f'; {self.remedy}' if self.remedy else ''}"


class Profile(Record):
    """One artifact on this host."""

    schema_version: Literal[1] = 1
    kind: Literal["profile"] = "profile"
    model: str
    digest: str
    runtime: str
    precision: str
    host: dict[str, Any]
    lacks: tuple[str, ...] = Field(description="Instruction sets of x86 for models that this processor lacks.")
    threads: int
    threads_from: str
    batch: int
    shapes: dict[str, tuple[int, ...]] = Field(description="Of the inputs, by name.")
    runs: int
    rows_from: str = Field(description="What was run: evaluation, golden or random rows.")
    plain_ms: float = Field(description="The median of a batch without the profiler: the time to trust.")
    profiled_ms: float = Field(description="The same with it.")
    operators: tuple[OperatorTime, ...]
    nodes: tuple[NodeShare, ...]
    findings: tuple[ProfileFinding, ...]
    notes: tuple[str, ...] = ()

    @property
    def overhead(self) -> float:
        """Share by which the profiler slows a batch."""
        return self.profiled_ms / self.plain_ms - 1 if self.plain_ms else 0.0

    @property
    def outside_ms(self) -> float:
        """Of a batch without the profiler, what no operator took: at least, since operators look slower with it."""
        return max(0.0, self.plain_ms - sum(operator.ms for operator in self.operators))
