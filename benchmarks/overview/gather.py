"""Sections from the records of a folder."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from hone.errors import HoneError, first_problem, one_line

from .records import Findings, Overview, Section
from .sections import BENCHMARKS, Benchmark


def gather(folder: Path, problems: Mapping[str, str]) -> Overview:
    """Put together what the records of a folder say.

    Args:
        folder: of the records.
        problems: why a benchmark's run failed just now, by its name.
    """
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    sections = [section(benchmark, folder, problems.get(benchmark.name, "")) for benchmark in BENCHMARKS]
    return Overview(created=created, sections=sections)


def section(benchmark: Benchmark, folder: Path, problem: str) -> Section:
    """Return a benchmark's section; a record that can't be read is a failure with its reason.

    Args:
        folder: of the records.
        problem: why its run failed just now; empty: it didn't, or there was none.
    """
    command = "" if benchmark.program == "hone" else "python -m "
    command += shlex.join([benchmark.program, *benchmark.arguments(folder, None)])
    about = {"name": benchmark.name, "title": benchmark.title, "about": benchmark.about}
    file = benchmark.file(folder)
    if not file.exists():
        status = "failed" if problem else "not run"
        reason = problem or f"there is no {file.name} yet"
        return Section.model_validate({**about, "status": status, "reason": reason, "command": command})
    try:
        record = _read(file)
        found = _findings(benchmark, record, file)
    except HoneError as error:
        return Section(**about, status="failed", reason=problem or one_line(error), command=command)
    host = record.get("host")
    return Section(
        **about,
        status="measured",
        reason=f"a later run failed, these figures are of the one before: {problem}" if problem else "",
        command=record.get("command") or command,
        created=record.get("created", ""),
        host=host if isinstance(host, dict) else {},
        made_by=record.get("made_by", ""),
        findings=found,
    )


def _findings(benchmark: Benchmark, record: dict[str, Any], file: Path) -> Findings:
    try:
        return benchmark.read(record)
    except ValidationError as error:
        raise HoneError(f"{file}: not what '{benchmark.program}' writes: {first_problem(error)}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HoneError(f"{file}: not what '{benchmark.program}' writes: {one_line(error)}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        record = orjson.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise HoneError(f"{file}: can't be read: {one_line(error)}") from None
    if not isinstance(record, dict):
        raise HoneError(f"{file}: is no record")
    return record
