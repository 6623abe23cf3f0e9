"""The documented schemas are the ones that the code writes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import BaseModel

from hone.benchmarks.records import Answers, Check, Generator, LoadReport, Second
from hone.benchmarks.scenarios import Scenario
from hone.converters.report.records import PassReport, Percentiles, Report, VariantReport
from tests.checkouts import tracked
from tests.documents import table_rows, written_files
from tests.servers import ROOT

DOCS = Path(__file__).parents[2] / "docs"
README = DOCS.parent / "README.md"


@pytest.mark.parametrize(
    ("page", "tables", "parts"),
    [
        ("report.md", (Report, VariantReport), (PassReport, Percentiles)),
        ("load-report.md", (LoadReport,), (Scenario, Second, Check, Generator, Answers)),
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

    from hone.services.observe.metrics import _families, _golden_families
    from hone.services.settings import Settings

    page = (DOCS / "serving.md").read_text()
    words = set(re.findall(r"\w+", page))
    assert [field.name for field in fields(Settings) if field.name.upper() not in words] == []
    assert [
        family._name
        for family in (*_families().values(), *_golden_families())
        if not re.search(rf"{family._name}\b|{family._name}_total", page)
    ] == []


def test_files_that_pages_name_are_there() -> None:
    """As from the top of the checkout, or from a folder that the page speaks of."""
    pages = [name for name in tracked() if name.endswith(".md") and not name.startswith("examples/")]
    there = "".join(f"/{name}\n" for name in tracked())
    lost = []
    for page in pages:
        text = re.sub(r"^```python\n.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
        named = set(re.findall(r"(?<![\w/.])(?!out/|env/)(?:[\w-]+/)+[\w-]+\.(?:py|md|html|sh|yaml)\b", text))
        new = {path for files in written_files(page).values() for path in files}
        lost += [f"{page}: {name}" for name in sorted(named - new) if f"/{name}\n" not in there]
    assert lost == []


def test_readme_counts_the_variants_of_the_demo() -> None:
    from hone.converters.run.plan import make_plan
    from hone.recipe import load_recipe

    plan = make_plan(load_recipe(README.parent / "examples" / "digits" / "recipe.yaml"), "torch")
    gpu = sum(variant.name.startswith("tensorrt-") for variant in plan.variants)
    (counts,) = re.findall(r"makes (\d+) variants \((\d+) more with an NVIDIA GPU\)", README.read_text())
    assert counts == (str(len(plan.variants) - gpu), str(gpu))


def _passes() -> set[str]:
    from hone.converters.passes import all_passes

    return set(all_passes())


def _presets() -> set[str]:
    from hone.converters.run.plan import PRESETS

    return set(PRESETS)


def _suffixes() -> set[str]:
    from hone.converters.sources import all_sources

    return {suffix for source in all_sources().values() for suffix in source.suffixes}


def _runtimes() -> set[str]:
    from hone.runtimes import all_runtimes

    return set(all_runtimes())


def _metrics() -> set[str]:
    from hone.converters.proof.metrics import all_metrics

    return set(all_metrics())


def _peers() -> set[str]:
    from hone.benchmarks.peers.description import converters, detectors, servers

    return {peer.name for peer in (*servers(), *converters(), *detectors())}


@pytest.mark.parametrize(
    ("row", "there"),
    [
        ("passes", _passes),
        ("presets", _presets),
        ("sources", _suffixes),
        ("runtimes", _runtimes),
        ("metrics", _metrics),
        ("peers", _peers),
    ],
)
def test_readme_lists_what_there_is(row: str, there: Callable[[], set[str]]) -> None:
    """What a file registers has its name in the row of its kind, in code."""
    rows = dict(re.findall(r"^\| \*\*(\w+)\*\* \| (.*) \|$", README.read_text(), re.MULTILINE))
    assert sorted(there() - set(re.findall(r"`([\w.-]+)`", rows[row]))) == []


def test_readme_lists_every_command() -> None:
    from click import Context

    from hone.cli.main import cli

    shown = " ".join(table_rows("README.md", "Commands"))
    assert [name for name in cli.list_commands(Context(cli)) if not re.search(rf"`hone {name}\b", shown)] == []
