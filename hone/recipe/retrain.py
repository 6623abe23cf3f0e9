"""The recipe's field `retrain`: how a new model is trained, when, and what becomes of it."""

from __future__ import annotations

import shlex
from typing import Literal

from pydantic import Field, field_validator, model_validator

from hone.recipe.model import Reference, Strict


class NewRowsSpec(Strict):
    """A data file that grows."""

    file: str = Field(description="An .npz or .parquet file, relative to the recipe.")
    rows: int = Field(ge=1, description="So many more than at the last run begin another.")


class ParameterSpec(Strict):
    """A parameter of the training, and what it may be: a range, or one of several choices."""

    low: float | None = Field(None, description="Least.")
    high: float | None = Field(None, description="Most.")
    integer: bool = Field(False, description="Whole numbers only.")
    log: bool = Field(False, description="By its logarithm, as for a learning rate: `low` is over 0 then.")
    choices: tuple[str | float | bool, ...] | None = Field(None, description="In place of a range.")

    @model_validator(mode="after")
    def _one_kind(self) -> ParameterSpec:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.integer or self.log or not self.choices:
                raise ValueError("give 'choices', one at least, or 'low' and 'high', not both")
            return self
        if self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("give 'low' and 'high', the one below the other, or 'choices'")
        if self.log and self.low <= 0:
            raise ValueError("'log' needs a 'low' over 0")
        if self.integer and (self.low != int(self.low) or self.high != int(self.high)):
            raise ValueError("'low' and 'high' of an integer are whole numbers")
        return self


class TrainingSearchSpec(Strict):
    """Parameters that the training is tried with (Optuna); the best trial's model goes on."""

    parameters: dict[str, ParameterSpec] = Field(
        min_length=1, description="By name: the training gets them as JSON in HONE_RETRAIN_PARAMETERS."
    )
    goal: Literal["maximize", "minimize"] = Field(
        description="Of the number that the training writes to the file `score` in HONE_RETRAIN_OUT: a figure of rows "
        "that are neither trained with nor the evaluation's."
    )
    trials: int = Field(20, ge=1, le=1000, description="Trainings at most.")
    minutes: float = Field(60, gt=0, description="After which no other begins; the run's `minutes` end all.")


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
    search: TrainingSearchSpec | None = Field(None, description="The training's own parameters, searched for.")
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
        if self.search and not (self.command or self.call):
            raise ValueError("'search' tries a training with other parameters: give 'command' or 'call'")
        return self
