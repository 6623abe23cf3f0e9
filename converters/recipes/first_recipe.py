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

UNKNOWN = Signature(inputs=(TensorSpec(name="input", dtype="float32", shape=(BATCH, 3, 224, 224)),))
"""Stands where the inputs can't be read from the file."""

COLUMN = 34
"""Where comments begin."""

VALUES = ("prediction", "output")
"""What sources call an output of values; others are of classes."""


STEPS = (0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5)
"""Budgets that are written."""


@dataclass(frozen=True)
class EvaluationFile:
    """A file of evaluation rows: its path, relative to the recipe, and how many rows it has."""

    path: Path
    rows: int


def recipe_text(
    name: str,
    model: Path,
    source: Source,
    signature: Signature | None,
    recipe: Path,
    data: Path,
    evaluation: EvaluationFile | None = None,
) -> str:
    """Return a recipe.

    Args:
        name: of the model in the store.
        model: its file, as the recipe is to name it, relative to the recipe's folder.
        source: its framework.
        signature: None when the file has none that can be read here.
        recipe: the file that the text is for.
        data: the data module, beside the recipe.
        evaluation: the rows, when they are known; the budget is then one that they can prove.
    """
    file = recipe.parent / model
    outputs = (signature.output_names if signature else []) or source.outputs_of(file)
    lines = [
        f"# Recipe for {model.name}. Fill in what is marked TODO, then: hone optimize {recipe.name}",
        *_entry("name", _scalar(name), "the model's name in the store"),
        "",
        "source:",
        *_entry("  file", _scalar(model.as_posix()), "relative to this recipe"),
        *(line for text, comment in source.recipe_lines(file) for line in _commented(f"  {text}", comment)),
        "",
        *_signature_lines(signature, outputs),
        "",
        *_data_lines(source, data, evaluation),
        "",
        *_quality_lines(source, outputs, evaluation.rows if evaluation else None),
        "",
        *_choice_lines(source),
    ]
    return "\n".join(lines) + "\n"


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
        lines += _entry(
            f"    {_scalar(spec.name)}", f"{{dtype: {spec.dtype}, shape: [{shape}]}}", "" if number else comment
        )
    text = f"  # outputs: [{', '.join(_scalar(name) for name in outputs)}]"
    comment = "# other names, in the model's order; shapes are measured"
    lines += [f"{text:<{COLUMN}}{comment}"] if len(text) < COLUMN else [f"  {comment}", text]
    return lines


def _data_lines(source: Source, data: Path, evaluation: EvaluationFile | None) -> list[str]:
    if evaluation:
        lines = _entry("evaluation", _scalar(evaluation.path.as_posix()), f"{evaluation.rows:,} rows: judges variants")
    else:
        text = f"TODO in {data.name}, or an .npz or .parquet file: judges variants"
        lines = _entry("evaluation", f"{data.stem}:evaluation", text)
    if source.multiplies:
        text = f"TODO in {data.name}: rows that int8 ranges come from, not those of evaluation"
        lines += _entry("calibration", f"{data.stem}:calibration", text)
    return lines


def _quality_lines(source: Source, outputs: list[str], rows: int | None) -> list[str]:
    metric, comment = _metric(source, outputs)
    drop, proof = _provable(len(_variants(source)), rows, all_metrics()[metric].reads == "classes")
    return [
        "quality:",
        *_entry("  metric", metric, comment),
        "",
        "budget:                           # limits a variant must meet; one left out is no limit",
        *_entry("  quality_drop", f"{drop:g}", "largest loss against the source, in the metric's unit; or '1%'"),
        f"  # {proof}",
        "  # p95_ms: 10".ljust(COLUMN) + "# largest 95th percentile latency of a call, ms",
        "  # size_mb: 20".ljust(COLUMN) + "# largest size on disk, MB",
        "  # peak_rss_mb: 500".ljust(COLUMN) + "# largest memory of a process that runs it, MiB",
        *_entry("  at", "{batch: 1, threads: all}", "where latency is judged and variants are ranked"),
    ]


def _provable(variants: int, rows: int | None, counts: bool) -> tuple[float, str]:
    """Return a budget, and in words what it takes to prove it.

    Args:
        variants: of the recipe.
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


def _metric(source: Source, outputs: list[str]) -> tuple[str, str]:
    """Return a metric that fits the model's first output, and a comment."""
    if source.multiplies:
        chosen, others = _usual("any")
        with_labels = f"with labels: {_usual('classes')[0]}, {_usual('values')[0]}, …"
        return chosen, f"to the source's outputs; or {', '.join(others[:2])}; {with_labels}"
    chosen, others = _usual("values" if outputs[0] in VALUES else "classes")
    return chosen, f"against the labels of evaluation; or {', '.join(others[:3])}, …, or module:function"


def _usual(reads: str) -> tuple[str, list[str]]:
    """Return the metric that is written for a kind of outputs, and the others of this kind."""
    fitting: list[Metric] = [metric for metric in all_metrics().values() if metric.reads == reads]
    (usual,) = (metric.name for metric in fitting if metric.usual)
    return usual, [metric.name for metric in fitting if not metric.usual]


def _variants(source: Source) -> dict[str, str]:
    """Return the variants that are written, each with a comment."""
    if not source.multiplies:
        return {"onnx-fp32": "int8 and fp16 are for networks: they gain nothing here"}
    return {
        "onnx-fp32": "the same numbers, on ONNX Runtime",
        "onnx-fp16": "half the size; fast on GPUs",
        "onnx-int8-dynamic": "int8 weights; for dense layers and transformers",
        "onnx-int8-static": "int8 weights and activations; for convolutions",
    }


def _choice_lines(source: Source) -> list[str]:
    lines = [*_entry("objective", "latency", "what decides among variants that meet the budget; or size, quality"), ""]
    lines.append("variants:")
    lines += [f"  - {variant}".ljust(COLUMN) + f"# {comment}" for variant, comment in _variants(source).items()]
    if not source.multiplies:
        return lines
    more = {
        "mlx-fp32": "on Apple Silicon",
        "mlx-q8": "on Apple Silicon, 8-bit weights",
        "tensorrt-fp16": "on an NVIDIA GPU",
        "tensorrt-int8": "on an NVIDIA GPU",
    }
    pruned = "pruned50-onnx-int8"
    if all_passes()[PRESETS[pruned][0][0]].accepts(source.name):
        more = {pruned: "half the channels; set 'train' to fine-tune what is left", **more}
    return lines + [f"  # - {variant}".ljust(COLUMN) + f"# {comment}" for variant, comment in more.items()]
