"""What the benchmark keeps of a run: an entry for each model, with its variants and the other tools' results."""

from __future__ import annotations

from typing import Any

from hone.artifact import Measurements
from hone.converters.proof.evaluate import resolve_threads
from hone.converters.proof.subject import Subject
from hone.converters.report.records import Report, VariantReport

FP32 = "onnx-fp32"
"""The variant that other tools start from."""


def summarize(name: str, report: Report, lines: int) -> dict[str, Any]:
    """Return one model's entry: the chosen variant, and every other beside it."""
    base = report.baseline
    entry: dict[str, Any] = {
        "name": name,
        "source": report.source,
        "metric": report.metric,
        "seconds": report.seconds,
        "recipe_lines": lines,
        "winner": report.winner,
        "variants": [_variant(variant, base, report) for variant in report.variants if not variant.baseline],
    }
    if report.winner is None:
        entry["chosen"] = None
        return entry
    winner = report.variant(report.winner)
    chosen = _variant(winner, base, report)
    by_batch = {batch: _ratio(rate, _rates(base).get(batch)) for batch, rate in _rates(winner).items()}
    if report.source == "torch":
        chosen["speedup_vs_torch"] = by_batch
    plain = next((variant for variant in report.variants if variant.name == FP32 and variant.latency_ms), None)
    if plain is not None:
        chosen["speedup_vs_onnx_fp32"] = {
            batch: _ratio(rate, _rates(plain).get(batch)) for batch, rate in _rates(winner).items()
        }
    if report.metric == "cosine":
        chosen["cosine_mean"] = winner.quality
    entry["chosen"] = chosen
    return entry


def _variant(variant: VariantReport, base: VariantReport, report: Report) -> dict[str, Any]:
    if variant.status != "built":
        return {"variant": variant.name, "status": variant.status, "reason": variant.reason}
    return {
        "variant": variant.name,
        "status": "built",
        "eligible": variant.eligible,
        "speedup_vs_source": variant.speedup,
        "p50_ms": _p50(report, variant),
        "quality": variant.quality,
        "quality_loss_pct": loss_pct(variant.quality_drop, base.quality),
        "size_ratio": _ratio(variant.size_mb, base.size_mb),
        "rows_per_s": _rates(variant),
        "seconds": round(sum(step.seconds for step in variant.passes), 1),
    }


def _p50(report: Report, variant: VariantReport) -> list[float | None]:
    """Return the median latency at the budget's conditions, and what it is between by the rounds."""
    found = report.judged(variant)
    return [found.p50, found.p50_low, found.p50_high]


def loss_pct(drop: float | None, base: float | None) -> float | None:
    """Return a drop as a percentage of the source's own quality; negative when the variant is better."""
    return None if drop is None or not base else round(100 * drop / abs(base), 4)


def _ratio(value: float | None, base: float | None) -> float | None:
    return round(value / base, 3) if value is not None and base else None


def tool_entry(subject: Subject, report: Report, fact: dict[str, Any]) -> dict[str, Any]:
    """Return the entry of another tool's result, measured beside a report's variants.

    Args:
        fact: the seconds and lines that the tool took.
    """
    if subject.failure or subject.measurements is None:
        return {"name": subject.name, "error": subject.failure}
    measured = subject.measurements
    threads = resolve_threads(report.budget.at.threads)
    latency = measured.at(report.budget.at.batch, threads)
    base = report.baseline
    fastest = report.judged(base, report.source_threads)
    return {
        "name": subject.name,
        **fact,
        "speedup_vs_source": _ratio(latency.rows_per_s if latency else None, fastest.rows_per_s),
        "quality": measured.quality.value,
        "quality_loss_pct": loss_pct(measured.quality.drop, base.quality),
        "size_ratio": _ratio(measured.size_mb, base.size_mb),
        "rows_per_s": _rates_of(measured, report),
    }


def _rates_of(measured: Measurements, report: Report) -> dict[str, float]:
    """Return rows/s by batch with all threads, as `_rates` does for a variant of the report."""
    threads = resolve_threads("all" if "all" in _threads(report.baseline) else report.budget.at.threads)
    return {str(latency.batch): latency.rows_per_s for latency in measured.latency if latency.threads == threads}


def _threads(variant: VariantReport) -> list[str]:
    return list(next(iter(variant.latency_ms.values()), {}))


def _rates(variant: VariantReport) -> dict[str, float]:
    """Return rows/s by batch with all threads (or what the recipe measured)."""
    key = "all" if "all" in _threads(variant) else next(iter(_threads(variant)), "")
    return {batch: table[key].rows_per_s for batch, table in variant.latency_ms.items() if key in table}
