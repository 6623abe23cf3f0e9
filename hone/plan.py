"""How a worker runs an artifact: measured once, told by a running service, and pinned in pods."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field, ValidationError, model_validator

from hone.errors import HoneError, first_problem, shorten
from hone.records import Record, read_record

VARIABLE = "HONE_PLAN"
"""The setting that gives a service its plan."""


WHAT = "a plan"

MOST = 1024
"""Processes, threads or batches side by side: no host is quicker with more, and so many threads can bring one down."""


class _Strict(Record):
    # A number in quotes, or true in place of 1, is a slip of whoever wrote the file.
    model_config = ConfigDict(strict=True)


class Measured(_Strict):
    """Rows/s of one way of running."""

    threads: int = Field(ge=1, description="Of one inference.")
    in_flight: int = Field(ge=1, description="Batches side by side.")
    rows: int = Field(ge=1, description="Of a batch.")
    seconds: float = Field(gt=0, description="Of a batch.")

    @property
    def rows_per_s(self) -> float:
        """Of all batches together."""
        return self.in_flight * self.rows / self.seconds

    def describe(self) -> str:
        side = f", {self.in_flight} side by side" if self.in_flight > 1 else ""
        return f"{self.rows_per_s:,.0f} rows/s ({self.rows} rows, threads {self.threads}{side})"


class Host(_Strict):
    """Where a plan was measured."""

    cpu: str
    cores: int = Field(ge=1)


class Plan(_Strict):
    """A plan: how an artifact is run, and the measurements that it was chosen by."""

    schema_version: Literal[1] = 1
    kind: Literal["plan"] = "plan"
    model: str = Field(description="The tag of the artifact.")
    digest: str = Field(description="Of its content: the plan is for nothing else.")
    workers: int = Field(ge=1, le=MOST, description="Processes of a server.")
    threads: int = Field(ge=1, le=MOST, description="Of one inference.")
    in_flight: int = Field(ge=1, le=MOST, description="Batches side by side in a worker.")
    max_batch_rows: int = Field(ge=1, description="Rows of one batch at most.")
    max_batch_cells: int = Field(0, ge=0, description="Rows x size of a row at most; 0: rows have one length.")
    inline: bool = Field(description="The runtime is called on the event loop, not in threads.")
    pad: bool = Field(description="Rows of several lengths share a batch.")
    spin: bool = Field(False, description="The runtime's threads wait for the next batch spinning, on a busy core.")
    created: str
    host: Host
    measured: tuple[Measured, ...] = Field((), description="What was tried, in order.")
    note: str = Field("", description="What a person should know, such as why lengths are kept apart.")

    @model_validator(mode="after")
    def _runs(self) -> Plan:
        if self.inline and self.in_flight > 1:
            raise ValueError("inline: the event loop runs one batch at a time, in_flight must be 1")
        return self

    def describe(self) -> str:
        """Return one line for the log."""
        tried = ", ".join(found.describe() for found in self.measured)
        where = "on the event loop" if self.inline else f"{self.in_flight} in flight"
        cells = f" and {self.max_batch_cells} cells" if self.max_batch_cells else ""
        spin = ", spinning" if self.spin else ""
        return (
            f"threads {self.threads}{spin}, batches of up to {self.max_batch_rows} rows{cells}, {where}"
            f"{'; ' + self.note if self.note else ''}; measured: {tried or 'nothing'}"
        )


def given_plan(text: str) -> Plan:
    """Return the plan that HONE_PLAN gives: JSON, or the path of a file of it.

    Raises:
        HoneError: the file can't be read, or it is no plan; the message names the field.
    """
    if not text.lstrip().startswith("{"):
        try:
            return read_record(Path(text), Plan, WHAT)
        except HoneError as error:
            raise HoneError(f"{VARIABLE}: {error}") from None
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        raise HoneError(f"{VARIABLE}: not {WHAT}: {shorten(first_problem(error, 'the text'), 300)}") from None
