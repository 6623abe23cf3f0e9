"""The page of a run, drawn from its record alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hone.converters.proof.disturbance import HostNoise
from hone.converters.report.page import write_html
from hone.converters.report.plots import pareto_svg
from hone.converters.report.records import ClaimReport, Percentiles, Report, VariantReport
from hone.recipe import Budget, Conditions


def variant(name: str, p50: float = 1.0, quality: float = 0.9, **changes: Any) -> VariantReport:
    latency = Percentiles(
        p50=p50,
        p50_low=0.9 * p50,
        p50_high=1.1 * p50,
        p95=2 * p50,
        p99=3 * p50,
        mean=p50,
        rows_per_s=1e3 / p50,
        calls=9,
    )
    return VariantReport(
        name=name, status="built", runtime="r", precision="fp32", digest="0", quality=quality,
        quality_drop=0.9 - quality, max_difference=0.0, mean_difference=0.0, size_mb=1.0, peak_rss_mb=50.0, load_ms=5.0,
        latency_ms={"1": {"1": latency}}, **{"eligible": True, **changes},
    )  # fmt: skip


def report(*variants: VariantReport, **changes: Any) -> Report:
    source = variant("torch", 4.0, baseline=True, eligible=changes.pop("source_met", True), pareto=True)
    content: dict[str, Any] = {
        "name": "m", "run": "r", "created": "c", "recipe": "recipe.yaml", "recipe_sha256": "0", "source": "torch",
        "metric": "accuracy", "higher_is_better": True, "objective": "latency", "evaluation_rows": 100,
        "budget": Budget(quality_drop=0.02, at=Conditions(batch=1, threads=1)), "tools": {}, "seconds": 1.0,
        "host": {"cpu": "c", "cores": 2, "memory_gb": 8, "system": "s", "gpu": None, "cpu_features": []},
        "winner": None, "source_threads": "1", "variants": [source, *variants], **changes,
    }  # fmt: skip
    return Report(**content)


def page(folder: Path, *variants: VariantReport, **changes: Any) -> str:
    return write_html(report(*variants, **changes), folder).read_text()


def test_the_legend_names_only_what_is_drawn(tmp_path: Path) -> None:
    text = page(tmp_path, variant("slow", 9.0, eligible=False))
    assert "Orange: the source." in text and "Gray: misses it." in text
    assert "Star" not in text and "Blue" not in text and "Pareto front" not in text
    full = page(tmp_path, variant("a", pareto=True, quality=0.89), variant("b"), winner="a")
    assert "Star: winner." in full and "Blue: meets the budget." in full and "The line is the Pareto front." in full


def test_the_interval_of_a_loss_is_shown_and_what_would_decide(tmp_path: Path) -> None:
    proof = {"loss": 0.01, "loss_lower": -0.002, "loss_upper": 0.0312, "loss_allowed": 0.02, "confidence": 0.95}
    open_ = variant("a", eligible=False, verdict="undecided", rows_to_decide=1234, worst_class="class 3",
                    worst_class_loss=0.125, tag="m:a-1", **proof)  # fmt: skip
    text = page(tmp_path, open_, safest="a", selection_rows=40)
    assert "-0.0020 to +0.0312" in text and "class 3: +0.1250" in text
    assert '<span class="tag skip">undecided</span>' in text and "about 1,234 rows would decide" in text
    assert "No variant is proven to meet the budget" in text and "it is kept as m:a-1" in text
    assert "Violet: not decided." in text and "Bars: what the quality is between." in text
    assert "none of them among the 40 that the search chose by" in text
    assert "worst slice" not in text


def test_what_has_no_bounds_is_said_in_place_of_rows_that_would_decide() -> None:
    few = "accuracy: 3 evaluation row(s) are too few to tell anything; give 8 or more"
    open_ = variant("a", eligible=False, verdict="undecided", reason=few)
    assert report(open_, safest="a").undecided.endswith(f"the safest is a, and it can't be told: {few}")
    problem = "likeness compares no classes with labels"
    proof = {"loss": 0.0, "loss_lower": 0.0, "loss_upper": 0.0, "loss_allowed": 0.02}
    what = "the worst class"
    claim = ClaimReport(what=what, loss=None, loss_upper=None, allowed=0.1, problem=problem)
    open_ = variant("a", eligible=False, verdict="undecided", claims=[claim], reason=f"{what}: {problem}", **proof)
    assert f"it can't be told: the worst class: {problem}" in report(open_, safest="a").undecided


def test_a_report_of_an_earlier_version_has_its_verdicts(tmp_path: Path) -> None:
    text = page(tmp_path, variant("a"), variant("b", eligible=False), winner="a")
    assert '<span class="tag met">met</span>' in text and '<span class="tag bad">missed</span>' in text
    assert "Bars:" not in text and "worst class" not in text


def test_the_source_is_not_gray_when_it_misses_a_limit(tmp_path: Path) -> None:
    text = page(tmp_path, variant("a"), winner="a", source_met=False)
    assert '<tr class="">\n      <td>torch</td>' in text
    assert '<tr class="missed">' not in text


def test_nothing_made_has_no_section_of_how(tmp_path: Path) -> None:
    failed = VariantReport(name="a", status="failed", reason="why")
    assert "How each was made" not in page(tmp_path, failed)


def test_a_function_as_metric_is_called_by_its_name_alone(tmp_path: Path) -> None:
    text = page(tmp_path, variant("a"), winner="a", metric="my.module:token_accuracy")
    assert '<th class="wrap">token_accuracy</th>' in text and "my.module:" not in text


def test_ties_disturbance_and_skipped_checks_are_said(tmp_path: Path) -> None:
    noise = HostNoise(spread=2.0, stolen=0.0, ticks=40)
    text = page(
        tmp_path,
        variant("a"),
        variant("b", tied=True),
        winner="a",
        noise=noise,
        checks_skipped="it is a calibration error",
    )
    assert ">tie</span>" in text and "the host was disturbed" in text
    assert "skips the checks of its metric: it is a calibration error" in text


def test_the_axis_has_several_numbers_even_for_one_point() -> None:
    drawing = pareto_svg(report())
    numbers = re.findall(r'y="30[\d.]+"[^>]*>([\d.]+)</text>', drawing)
    assert {"2", "5", "10"} <= set(numbers)


def test_a_label_lies_on_its_points_side_of_the_budget_and_not_on_the_line() -> None:
    """Points a hair above the budget, where the line would run through their names."""
    close = [variant(f"variant-{index}", 1.0 + index / 50, 0.8805 + index / 5000) for index in range(3)]
    drawing = pareto_svg(report(*close, variant("below", 0.5, 0.85, eligible=False), winner="variant-0"))
    places = {
        name: float(y)
        for y, name in re.findall(
            r'transform="translate\([\d.]+ ([\d.]+)\)[^"]*">\s*(variant-\d|below|quality budget)<', drawing
        )
    } or {name: float(y) for y, name in re.findall(r'y="([\d.]+)"[^>]*>(variant-\d|below|quality budget)<', drawing)}
    line = places.pop("quality budget")
    assert len(places) == 4, drawing[:200]
    assert places.pop("below") > line
    assert all(y < line for y in places.values()), (places, line)


def test_where_the_time_goes_is_told_of_what_was_profiled(tmp_path: Path) -> None:
    told = {"time_by_operator": {"MatMul": 0.61, "Softmax": 0.2}, "findings": ["20% of the time: attention in parts"]}
    text = page(tmp_path, variant("a", tag="m:a-1", **told), variant("b"))
    section = text.partition("Where the time goes")[2].partition("</section>")[0]
    assert "MatMul 61 %, Softmax 20 %" in section and "attention in parts" in section
    assert "hone profile m:a-1" in section and "<b>b</b>" not in section
    assert "Where the time goes" not in page(tmp_path, variant("b"))
