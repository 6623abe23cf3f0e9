"""The documented schemas are the ones that the code writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from benchmarks.records import LoadReport, Second
from converters.records import PassReport, Percentiles, Report, VariantReport

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"


@pytest.mark.parametrize(
    ("page", "records"),
    [("report.md", (Report, VariantReport, PassReport, Percentiles)), ("load-report.md", (LoadReport, Second))],
)
def test_every_field_is_documented(page: str, records: tuple[type[BaseModel], ...]) -> None:
    words = set(re.findall(r"\w+", (DOCS / page).read_text()))
    missing = [f"{record.__name__}.{name}" for record in records for name in record.model_fields if name not in words]
    assert missing == []


def test_every_setting_and_metric_of_a_service_is_documented() -> None:
    from dataclasses import fields

    from services.metrics import _families
    from services.settings import Settings

    page = (DOCS / "serving.md").read_text()
    words = set(re.findall(r"\w+", page))
    assert [field.name for field in fields(Settings) if field.name.upper() not in words] == []
    assert [
        family._name
        for family in _families().values()
        if not re.search(rf"{family._name}\b|{family._name}_total", page)
    ] == []


def test_readme_counts_the_variants_of_the_demo() -> None:
    from converters.plan import make_plan
    from hone.recipe import load_recipe

    plan = make_plan(load_recipe(README.parent / "examples" / "digits" / "recipe.yaml"), "torch")
    gpu = sum(variant.name.startswith("tensorrt-") for variant in plan.variants)
    (counts,) = re.findall(r"makes (\d+) variants \((\d+) more with an NVIDIA GPU\)", README.read_text())
    assert counts == (str(len(plan.variants) - gpu), str(gpu))


def test_readme_lists_what_there_is() -> None:
    from converters.passes.base import registered
    from converters.plan import PRESETS

    text = README.read_text()
    rows = dict(re.findall(r"^\| \*\*(\w+)\*\* \| (.*) \|$", text, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows["passes"])) >= set(registered())
    assert set(re.findall(r"`([\w-]+)`", rows["presets"])) == set(PRESETS)
