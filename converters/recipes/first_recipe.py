"""The text of a first recipe: what is known of a model filled in, the rest marked TODO, each field with a comment."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from hone.evidence.pairs import provable_loss, rows_to_prove
from hone.recipe import Budget
from hone.signature import BATCH, Signature, TensorSpec

from ..passes import all_passes
from ..proof.metrics import Metric, all_metrics
from ..run.plan import PRESETS
from ..sources import Source
from .rows_file import RowsFile

UNKNOWN = Signature(inputs=(TensorSpec(name="input", dtype="float32", shape=(BATCH, 3, 224, 224)),))
"""Stands where the inputs can't be read from the file."""

COLUMN = 34
"""Where comments begin."""

VALUES = ("prediction", "output")
"""What sources call an output of values; others are of classes."""


STEPS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
"""Budgets that are written."""


AUTO_VARIANTS = 4
"""So many presets that `auto` stands for are about what comes into the proof of a network."""


@dataclass(frozen=True)
class Asked:
    """Limits that a recipe is to have; None: the usual one, or none.

    Attributes:
        loss: largest loss against the source, in the metric's unit or relative, as `budget.quality_drop`.
        p95_ms, size_mb: as in the budget.
    """

    loss: float | str | None = None
    p95_ms: float | None = None
    size_mb: float | None = None


NOTHING = Asked()


def recipe_text(
    name: str,
    model: Path,
    source: Source,
    signature: Signature | None,
    recipe: Path,
    data: Path,
    rows: RowsFile | None = None,
    asked: Asked = NOTHING,
) -> str:
    """Return a recipe.

    Args:
        name: of the model in the store.
        model: its file, as the recipe is to name it, relative to the recipe's folder.
        source: its framework.
        signature: None when the file has none that can be read here.
        recipe: the file that the text is for.
        data: the data module, beside the recipe.
        rows: the rows, when they are known; the budget is then one that they can prove.
        asked: limits.
    """
    file = recipe.parent / model
    outputs = (signature.output_names if signature else []) or source.outputs_of(file)
    lines = [
        *_entry("name", _scalar(name), "the model's name in the store"),
        "",
        "source:",
        *_entry("  file", _scalar(model.as_posix()), "relative to this recipe"),
        *(line for text, comment in source.recipe_lines(file) for line in _commented(f"  {text}", comment)),
        "",
        *_signature_lines(signature, outputs),
        "",
        *_data_lines(source, data, rows),
        "",
        *_quality_lines(source, file, outputs, rows, asked),
        "",
        *_choice_lines(source),
    ]
    first = "Fill in what is marked TODO, then" if any("TODO" in line for line in lines) else "Run it"
    return "\n".join([f"# Recipe for {model.name}. {first}: hone optimize {recipe.name}", *lines]) + "\n"


def _entry(key: str, value: str, comment: str) -> list[str]:
    return _commented(f"{key}: {value}", comment)


def _commented(text: str, comment: str) -> list[str]:
    """Return a line with its comment, the comments in one column; one that doesn't fit goes above."""
    if not comment:
        return [text]
    indent = " " * (len(text) - len(text.lstrip(" -")))
    return [f"{text:<{COLUMN}}# {comment}"] if len(text) < COLUMN else [f"{indent}# {comment}", text]


def _scalar(text: str) -> str:
    """Return a string as YAML, quoted where YAML would take it for something else."""
    plain = re.fullmatch(r"[\w./-]+", text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text)


def _signature_lines(signature: Signature | None, outputs: list[str]) -> list[str]:
    lines = ["signature:", "  inputs:"]
    comment = "TODO: name, dtype and shape of each input"
    if signature:
        comment = f"read from the file{'; batch is dynamic' if signature.batchable else ''}"
    for number, spec in enumerate((signature or UNKNOWN).inputs):
        shape = ", ".join(str(axis) for axis in spec.shape)
        pad = "" if spec.pad_value is None else f", pad_value: {spec.pad_value:g}"
        text = f"{{dtype: {spec.dtype}, shape: [{shape}]{pad}}}"
        lines += _entry(f"    {_scalar(spec.name)}", text, "" if number else comment)
    text = f"  # outputs: [{', '.join(_scalar(name) for name in outputs)}]"
    comment = "# other names, in the model's order; shapes are measured"
    lines += [f"{text:<{COLUMN}}{comment}"] if len(text) < COLUMN else [f"  {comment}", text]
    return lines


def _data_lines(source: Source, data: Path, rows: RowsFile | None) -> list[str]:
    if rows is None:
        text = f"TODO in {data.name}, or an .npz, .csv or .parquet file: judges variants"
        lines = _entry("evaluation", f"{data.stem}:evaluation", text)
    elif rows.calibration:
        return [
            *_entry(
                "calibration", _rows(rows, (0, rows.share)), f"{rows.calibration:,} rows that int8 ranges come from"
            ),
            *_entry("evaluation", _rows(rows, (rows.share, 1)), f"the other {rows.rows:,}: they judge variants"),
        ]
    else:
        lines = _entry("evaluation", _rows(rows), f"{rows.rows:,} rows: judges variants")
        if rows.split:
            return lines
    if source.multiplies:
        text = f"TODO in {data.name}: rows that int8 ranges come from, not those of evaluation"
        lines += _entry("calibration", f"{data.stem}:calibration", text)
    return lines


def _rows(rows: RowsFile, share: tuple[float, float] | None = None) -> str:
    """Return a data set as a recipe has it, on one line."""
    parts = [f"from: {_scalar(rows.path.as_posix())}"]
    parts += [f"share: [{share[0]:g}, {share[1]:g}]"] if share else []
    parts += [f"labels: {_scalar(rows.labels)}"] if rows.labels else []
    columns = (f"{_scalar(name)}: [{', '.join(map(_scalar, parts))}]" for name, parts in rows.columns.items())
    parts += [f"columns: {{{', '.join(columns)}}}"] if rows.columns else []
    return f"{{{', '.join(parts)}}}" if len(parts) > 1 else _scalar(rows.path.as_posix())


def _quality_lines(source: Source, file: Path, outputs: list[str], rows: RowsFile | None, asked: Asked) -> list[str]:
    metric, comment = _metric(source, file, outputs, rows)
    counts = all_metrics()[metric].reads == "classes"
    drop, proof = _provable(AUTO_VARIANTS if source.multiplies else 1, rows.rows if rows else None, counts)
    limits = {
        "p95_ms": (asked.p95_ms, 10, "largest 95th percentile latency of a call, ms"),
        "size_mb": (asked.size_mb, 20, "largest size on disk, MB"),
        "peak_rss_mb": (None, 500, "largest memory of a process that runs it, MiB"),
    }
    return [
        "quality:",
        *_entry("  metric", metric, comment),
        "",
        "budget:                           # limits a variant must meet; one left out is no limit",
        *_entry(
            "  quality_drop",
            f"{drop:g}" if asked.loss is None else f"{asked.loss}",
            "largest loss against the source, in the metric's unit; or '1%'",
        ),
        f"  # {proof}",
        *(
            f"  {'# ' if value is None else ''}{name}: {usual if value is None else value:g}".ljust(COLUMN)
            + f"# {text}"
            for name, (value, usual, text) in limits.items()
        ),
        *_entry("  at", "{batch: 1, threads: all}", "where latency is judged and variants are ranked"),
    ]


def too_few(source: Source, rows: RowsFile, metric: str, loss: float | str) -> str:
    """Return in words how many rows would prove a loss, where the rows are fewer than that; else an empty text.

    It can be told beforehand where a row is right or wrong, and for a loss in the metric's unit.
    """
    if isinstance(loss, str) or not 0 < loss < 1 or all_metrics()[metric].reads != "classes":
        return ""
    variants, confidence = AUTO_VARIANTS if source.multiplies else 1, Budget().confidence
    need = rows_to_prove(loss, confidence, variants)
    if rows.rows >= need:
        return ""
    least = math.ceil(provable_loss(rows.rows, confidence, variants) * 1e4) / 1e4
    return (
        f"{rows.rows:,} evaluation rows can't prove a loss under {loss:g} where a row is right or wrong, but {least:g} "
        f"at best; {need:,} would, and more when many answers change"
    )


def _provable(variants: int, rows: int | None, counts: bool) -> tuple[float, str]:
    """Return a budget, and in words what it takes to prove it.

    Args:
        variants: that are about to be proven.
        rows: of the evaluation, where they are known.
        counts: the metric says of each row that it is right or wrong.
    """
    confidence, first = Budget().confidence, STEPS[0]
    kind = f"{variants} variant{'s' if variants > 1 else ''}{'' if counts else ', a row right or wrong'}"
    need = f"under {first:g} takes {rows_to_prove(first, confidence, variants):,} rows"
    if rows is None:
        return first, f"to prove a loss {need} ({kind}), more when many answers change"
    least = provable_loss(rows, confidence, variants)
    drop = next((step for step in STEPS if step >= least), 1.0) if counts else first
    return drop, f"{rows:,} rows can prove losses under {math.ceil(least * 1e4) / 1e4:g} ({kind}); {need}"


def _metric(source: Source, file: Path, outputs: list[str], rows: RowsFile | None) -> tuple[str, str]:
    """Return a metric that fits the rows and the model's first output, and a comment."""
    if rows is not None and rows.reads:
        chosen, others = _usual(rows.reads)
        return chosen, f"against {rows.labels}; or {', '.join(others[:3])}, …, or module:function"
    if source.multiplies or (rows is not None and rows.split):
        chosen, others = _usual("any")
        with_labels = f"with labels: {_usual('classes')[0]}, {_usual('values')[0]}, …"
        return source.metric_of(file) or chosen, f"to the source's outputs; or {', '.join(others[:2])}; {with_labels}"
    chosen, others = _usual("values" if outputs[0] in VALUES else "classes")
    return chosen, f"against the labels of evaluation; or {', '.join(others[:3])}, …, or module:function"


def _usual(reads: str) -> tuple[str, list[str]]:
    """Return the metric that is written for a kind of outputs, and the others of this kind."""
    fitting: list[Metric] = [metric for metric in all_metrics().values() if metric.reads == reads]
    (usual,) = (metric.name for metric in fitting if metric.usual)
    return usual, [metric.name for metric in fitting if not metric.usual]


def _choice_lines(source: Source) -> list[str]:
    lines = [*_entry("objective", "latency", "what decides among variants that meet the budget; or size, quality"), ""]
    lines += _entry(
        "variants", "auto", "what fits the graph, this host and the budget: hone optimize --dry-run shows it"
    )
    if not source.multiplies:
        return lines
    lines.append("# or a list of presets and chains of your own, beside auto or without it:")
    own = {
        "auto": "",
        "onnx-int8-static": "a preset is made, whatever auto thinks of it",
        "{name: mine, passes: [export, simplify, {quantize_static: {method: entropy}}]}": "",
    }
    pruned = "pruned50-onnx-int8"
    if all_passes()[PRESETS[pruned][0][0]].accepts(source.name):
        own[pruned] = "half the channels; set 'train' to fine-tune what is left"
    return lines + [
        f"{f'#   - {variant}':<{COLUMN}}# {comment}" if comment else f"#   - {variant}"
        for variant, comment in own.items()
    ]
