"""The documented schemas are the ones that the code writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel

from hone.benchmarks.records import Check, LoadReport, Second
from hone.benchmarks.scenarios import Scenario
from hone.converters.report.records import PassReport, Percentiles, Report, VariantReport

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"


@pytest.mark.parametrize(
    ("page", "tables", "parts"),
    [
        ("report.md", (Report, VariantReport), (PassReport, Percentiles)),
        ("load-report.md", (LoadReport,), (Scenario, Second, Check)),
    ],
)
def test_documented_fields_are_those_of_the_report(
    page: str, tables: tuple[type[BaseModel], ...], parts: tuple[type[BaseModel], ...]
) -> None:
    """Each table of fields is a record, field by field; records inside them are described in its second column."""
    text = (DOCS / page).read_text()
    found = re.findall(r"^\| field \| meaning \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    assert len(found) == len(tables)
    for table, record in zip(found, tables, strict=True):
        rows = [line.split("|")[1] for line in table.splitlines()]
        assert sorted(re.findall(r"`(\w+)`", "".join(rows))) == sorted(record.model_fields)
    words = set(re.findall(r"\w+", text))
    assert [f"{part.__name__}.{name}" for part in parts for name in part.model_fields if name not in words] == []


def test_every_setting_and_metric_of_a_service_is_documented() -> None:
    from dataclasses import fields

    from hone.services.observe.metrics import _families
    from hone.services.settings import Settings

    page = (DOCS / "serving.md").read_text()
    words = set(re.findall(r"\w+", page))
    assert [field.name for field in fields(Settings) if field.name.upper() not in words] == []
    assert [
        family._name
        for family in _families().values()
        if not re.search(rf"{family._name}\b|{family._name}_total", page)
    ] == []


def test_readme_counts_the_variants_of_the_demo() -> None:
    from hone.converters.run.plan import make_plan
    from hone.recipe import load_recipe

    plan = make_plan(load_recipe(README.parent / "examples" / "digits" / "recipe.yaml"), "torch")
    gpu = sum(variant.name.startswith("tensorrt-") for variant in plan.variants)
    (counts,) = re.findall(r"makes (\d+) variants \((\d+) more with an NVIDIA GPU\)", README.read_text())
    assert counts == (str(len(plan.variants) - gpu), str(gpu))


def test_readme_lists_what_there_is() -> None:
    from hone.converters.passes import all_passes
    from hone.converters.proof.metrics import all_metrics
    from hone.converters.run.plan import PRESETS

    text = README.read_text()
    rows = dict(re.findall(r"^\| \*\*(\w+)\*\* \| (.*) \|$", text, re.MULTILINE))
    assert set(re.findall(r"`(\w+)`", rows["passes"])) >= set(all_passes())
    assert set(re.findall(r"`(\w+)`", rows["metrics"])) == set(all_metrics())
    assert set(re.findall(r"`([\w-]+)`", rows["presets"])) == set(PRESETS)
