"""The documented schemas are the ones that the code writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from benchmarks.records import LoadReport, Second
from converters.records import PassReport, Percentiles, Report, VariantReport

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "records"),
    [("report.md", (Report, VariantReport, PassReport, Percentiles)), ("load-report.md", (LoadReport, Second))],
)
def test_every_field_is_documented(page: str, records: tuple[type[BaseModel], ...]) -> None:
    words = set(re.findall(r"\w+", (DOCS / page).read_text()))
    missing = [f"{record.__name__}.{name}" for record in records for name in record.model_fields if name not in words]
    assert missing == []
