"""What the page shows, as typed records: `benchmarks.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hone.records import Record, read_record


class Table(Record):
    """Figures as they are shown."""

    title: str
    columns: list[str]
    rows: list[list[str]]


class Findings(Record):
    """What a record says, in words and tables."""

    result: str = Field(description="The few figures that matter, in one sentence.")
    spread: str = Field(description="What they are medians of, and how far apart these were.")
    tables: list[Table] = Field(default_factory=list)
    left_out: list[str] = Field(default_factory=list, description="What couldn't be measured, and why.")


class Section(Record):
    """One benchmark."""

    name: str
    title: str
    about: str = Field(description="What is measured, and beside what.")
    status: Literal["measured", "failed", "not run"]
    reason: str = Field("", description="Why there are no figures, or no newer ones; one line.")
    command: str = Field(description="What makes its record.")
    created: str = ""
    host: dict[str, Any] = Field(default_factory=dict)
    made_by: str = Field("", description="Version and commit of Hone.")
    findings: Findings | None = Field(None, description="Null: there is no record.")

    @property
    def place(self) -> str:
        """Where and of which code, in words."""
        facts = [str(self.host.get("cpu", "")), f"{self.host['cores']} cores" if "cores" in self.host else ""]
        memory = f"{self.host['memory_gb']:g} GB" if "memory_gb" in self.host else ""
        gpu = str(self.host.get("gpu") or "")
        return ", ".join(filter(None, [*facts, memory, gpu, self.made_by]))


class Overview(Record):
    """All benchmarks."""

    schema_version: Literal[1] = 1
    kind: Literal["benchmarks"] = "benchmarks"
    created: str
    sections: list[Section]


def read_overview(file: Path) -> Overview:
    """Read a `benchmarks.json`.

    Raises:
        HoneError: it is missing, or not one.
    """
    return read_record(file, Overview, "benchmarks that were put together", "make bench-report")
