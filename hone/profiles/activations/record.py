"""What a look at activations says: the content of `activations.json`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hone.records import Record

Kind = Literal["outliers", "wide", "dead", "saturated", "not_finite", "weights"]


class Outlier(Record):
    """A channel whose values are far larger than those of the others."""

    channel: int
    ratio: float = Field(description="Of its largest magnitude to the median channel's.")


class Remark(Record):
    """Something to know of a layer, and what to do about it."""

    kind: Kind
    what: str = Field(description="In one line.")
    remedy: str = ""

    @property
    def line(self) -> str:
        return f"{self.what}{f': {self.remedy}' if self.remedy else ''}"


class Layer(Record):
    """The values that one node of the graph gave, over all rows."""

    tensor: str = Field(description="Name of the value in the graph.")
    operator: str
    feeds: tuple[str, ...] = Field((), description="Types of the nodes that take it.")
    shape: tuple[int, ...] = Field(description="Of a row.")
    least: float
    most: float
    mean: float
    std: float
    percentiles: dict[str, float] = Field(description="By 0.1, 1, 50, 99 and 99.9; of a sample where there are many.")
    zeros: float = Field(description="Share of values that are exactly zero.")
    not_finite: int = Field(0, description="NaN and infinities, which are in no other number.")
    channels: int = Field(0, description="Along the axis that a layer's units are on; 0: it has none.")
    dead: int = Field(0, description="Channels that a rectifier gave as zero for every row and place.")
    outliers: tuple[Outlier, ...] = Field((), description="The largest first.")
    saturated: float | None = Field(None, description="Share of a sigmoid's or tanh's values that are near its ends.")
    int8_noise: float | None = Field(
        None, description="Error of int8 steps over the whole range, as a share of the values' standard deviation."
    )
    clipped_noise: float | None = Field(None, description="The same over the range of 99.8 % of the values.")
    remarks: tuple[Remark, ...] = ()


class Activations(Record):
    """One artifact."""

    schema_version: Literal[1] = 1
    kind: Literal["activations"] = "activations"
    model: str
    digest: str
    precision: str
    rows: int
    rows_from: str = Field(description="What was run: evaluation, golden or random rows.")
    layers: tuple[Layer, ...] = Field(description="In the order of the graph.")
    notes: tuple[str, ...] = ()
