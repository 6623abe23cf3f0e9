"""The recipe's field `retrain`: how a new model is trained, when, and what becomes of it."""

from __future__ import annotations

import shlex

from pydantic import Field, field_validator, model_validator

from hone.recipe.model import Reference, Strict


class NewRowsSpec(Strict):
    """A data file that grows."""

    file: str = Field(description="An .npz or .parquet file, relative to the recipe.")
    rows: int = Field(ge=1, description="So many more than at the last run begin another.")


class RetrainSpec(Strict):
    """How a new model is trained, when, and what becomes of it: `hone retrain`."""

    command: str | None = Field(
        None,
        description="Trains: run in the recipe's folder, without a shell. It writes the file that `source.file` names "
        "to the folder in HONE_RETRAIN_OUT; what lies beside the recipe is not touched.",
    )
    call: Reference | None = Field(
        None, description="In place of `command`: `module:function`, given that folder as a path."
    )
    schedule: str | None = Field(None, description="When, as cron says it, UTC: `0 3 * * 0` is Sunday at three.")
    new_rows: NewRowsSpec | None = Field(None, description="When a data file has grown.")
    drift: bool = Field(False, description="When `hone drift check` finds drift.")
    quality: bool = Field(
        False, description="When `hone feedback check` says to act: labels show that quality is lost."
    )
    cooldown_h: float = Field(24, ge=0, description="Hours after a run in which nothing but a person begins another.")
    runs: int = Field(10, ge=1, description="Most runs in 30 days that no person asked for.")
    minutes: float = Field(120, gt=0, description="A run that takes longer is ended, and has failed.")
    promote: bool = Field(
        True, description="Make the new version champion when every gate is open; false: it stays the candidate."
    )

    @field_validator("schedule")
    @classmethod
    def _five_fields(cls, value: str | None) -> str | None:
        if value is not None and len(value.split()) != 5:
            raise ValueError(f"'{value}' is no schedule: minute, hour, day, month, weekday, such as '0 3 * * 0'")
        return value

    @field_validator("command")
    @classmethod
    def _can_be_split(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                empty = not shlex.split(value)
            except ValueError as error:
                raise ValueError(f"'{value}' is no command: {error}") from None
            if empty:
                raise ValueError("is empty")
        return value

    @model_validator(mode="after")
    def _one_way(self) -> RetrainSpec:
        if self.command and self.call:
            raise ValueError("give 'command' or 'call', not both")
        return self
