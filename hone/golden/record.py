"""What a manifest says of an artifact's golden rows."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Tolerance(BaseModel):
    """How far the answers to the golden rows may be from the proof's, of one output."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    largest: float | None = Field(None, gt=0, allow_inf_nan=False, description="Of any value, absolute.")
    mean: float | None = Field(None, gt=0, allow_inf_nan=False, description="Of the mean over all values, absolute.")
    equal: float | None = Field(
        None, gt=0, le=1, description="Share of rows with the same class, or of equal values where they are no numbers."
    )

    @model_validator(mode="after")
    def _says_something(self) -> Tolerance:
        if (self.largest is None) != (self.mean is None):
            raise ValueError("'largest' and 'mean' go together")
        if self.largest is None and self.equal is None:
            raise ValueError("says neither how far values may be off nor which share must be equal")
        return self


class Golden(BaseModel):
    """Rows, the answers of the proof, and what an answer may differ by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str = Field(description="One of the artifact's files: .npz, with input.NAME and output.NAME.")
    rows: int = Field(ge=1)
    source: Literal["evaluation", "synthetic"] = Field(
        description="Rows of the evaluation set, or random ones within its ranges, where no row may leave the data."
    )
    repeats: int = Field(ge=0, description="Runs that the tolerances were taken from.")
    outputs: dict[str, Tolerance] = Field(min_length=1, description="Of a row that runs alone, by output.")
    joined: dict[str, Tolerance] = Field(
        min_length=1,
        description="Of rows in a batch: with activations that are quantized at run time, company changes an answer.",
    )
