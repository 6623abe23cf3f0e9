"""What the benchmark keeps of a run: an entry for each model, with its variants and the other tools' results."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hone.artifact import Latency
from hone.converters.proof.evaluate import resolve_threads
from hone.converters.proof.subject import Subject
from hone.converters.proof.verdicts.verdict import Ruling
from hone.converters.report.records import Percentiles, Report, VariantReport
from hone.evidence.bounds import ratio_interval

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
        "minutes": round(report.seconds / 60, 2),
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
        "loss": variant.loss,
        "loss_upper": variant.loss_upper,
        "loss_allowed": variant.loss_allowed,
        "size_ratio": _ratio(variant.size_mb, base.size_mb),
        "size_mb": variant.size_mb,
        "rows_per_s": _rates(variant),
        "rows_per_s_ci": _bounds(_timed(variant)),
        "seconds": (seconds := round(sum(step.seconds for step in variant.passes), 1)),
        "minutes": round(seconds / 60, 2),
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


def tool_entry(
    subject: Subject, report: Report, fact: dict[str, Any], rule: Callable[[Subject], Ruling], chosen: Subject | None
) -> dict[str, Any]:
    """Return the entry of another tool's result, measured beside a report's variants.

    Args:
        fact: the seconds and lines that the tool took.
        rule: gives the verdict on its answers, as on a variant's.
        chosen: the report's winner, which it is compared with turn by turn.
    """
    if subject.failure or subject.measurements is None:
        return {"name": subject.name, "error": subject.failure}
    measured = subject.measurements
    threads = resolve_threads(report.budget.at.threads)
    latency = measured.at(report.budget.at.batch, threads)
    base = report.baseline
    fastest = report.judged(base, report.source_threads)
    ruling = rule(subject)
    timed = {str(one.batch): one for one in measured.latency if one.threads == _thread_count(report)}
    return {
        "name": subject.name,
        **fact,
        "speedup_vs_source": _ratio(latency.rows_per_s if latency else None, fastest.rows_per_s),
        "quality": measured.quality.value,
        "quality_loss_pct": loss_pct(measured.quality.drop, base.quality),
        "loss": ruling.loss,
        "loss_upper": ruling.upper,
        "size_ratio": _ratio(measured.size_mb, base.size_mb),
        "size_mb": measured.size_mb,
        "rows_per_s": {batch: latency.rows_per_s for batch, latency in timed.items()},
        "rows_per_s_ci": _bounds(timed),
        "chosen_is_faster": _compared(chosen, timed) if chosen is not None and chosen.measurements else {},
    }


def _compared(chosen: Subject, timed: dict[str, Latency]) -> dict[str, list[float]]:
    """Return by batch how many times as fast the chosen variant is: the median over the turns, and what it is between
    at 95 % confidence."""
    found: dict[str, list[float]] = {}
    for batch, theirs in timed.items():
        ours = chosen.measured.at(theirs.batch, theirs.threads)
        if ours is not None and ours.rounds and len(ours.rounds) == len(theirs.rounds):
            low, middle, high = ratio_interval(theirs.rounds, ours.rounds)
            found[batch] = [round(value, 3) for value in (middle, low, high)]
    return found


def _bounds(timed: Mapping[str, Latency | Percentiles]) -> dict[str, list[float]]:
    """Return what rows/s are between at 95 % confidence, by batch, from the turns."""
    return {
        batch: [round(int(batch) * 1000 / one.p50_high, 1), round(int(batch) * 1000 / one.p50_low, 1)]
        for batch, one in timed.items()
        if one.p50_low and one.p50_high
    }


def _thread_count(report: Report) -> int:
    """Return the threads that `_timed` takes of a variant of the report."""
    return resolve_threads("all" if "all" in _threads(report.baseline) else report.budget.at.threads)


def _threads(variant: VariantReport) -> list[str]:
    return list(next(iter(variant.latency_ms.values()), {}))


def _rates(variant: VariantReport) -> dict[str, float]:
    return {batch: one.rows_per_s for batch, one in _timed(variant).items()}


def _timed(variant: VariantReport) -> dict[str, Percentiles]:
    """Return its latency by batch with all threads (or what the recipe measured)."""
    key = "all" if "all" in _threads(variant) else next(iter(_threads(variant)), "")
    return {batch: table[key] for batch, table in variant.latency_ms.items() if key in table}
