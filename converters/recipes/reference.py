"""The recipe's reference as Markdown, made from the same definitions that check recipes: `docs/recipe.md`."""

from __future__ import annotations

import math
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from hone.recipe import (
    Budget,
    Conditions,
    DataSpec,
    InputSpec,
    MeasureSpec,
    PromotionSpec,
    QualitySpec,
    Recipe,
    RobustnessSpec,
    SignatureSpec,
    SourceSpec,
    VariantSpec,
)
from hone.recipe.model import EnsembleSpec
from hone.recipe.python import PythonSpec
from hone.steps.own import Function
from hone.steps.record import PostStep, PreStep

from ..passes import all_passes
from ..proof.metrics import Metric, all_metrics
from ..run.plan import PRESETS
from ..sources import all_sources

SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The recipe", Recipe),
    ("source", SourceSpec),
    ("source.python", PythonSpec),
    ("source.ensemble", EnsembleSpec),
    ("signature", SignatureSpec),
    ("signature.inputs.NAME", InputSpec),
    ("calibration, evaluation", DataSpec),
    ("quality", QualitySpec),
    ("budget", Budget),
    ("budget.at", Conditions),
    ("robustness", RobustnessSpec),
    ("variants", VariantSpec),
    ("measure", MeasureSpec),
    ("promotion", PromotionSpec),
)
METRIC_COLUMNS = ("metric", "compares with", "from", "to", "better", "what it is")
HEAD = """# Recipe reference

Made from the code by `hone schema --markdown`; `hone init MODEL_FILE` writes a recipe to start from, and editors take
[recipe.schema.json](recipe.schema.json). Files and modules are looked up beside the recipe.
"""

STEPS = """Lists of steps, each by its name with its options; one without options may stand as its name alone.
[Steps](steps.md) has examples. An `input` that is left out behind a model is what the step before gives, or the model's
first output; what a step makes under another name takes the place of what it was made of."""


def recipe_reference() -> str:
    """Return every field of a recipe, every metric and preset, and every pass with its options."""
    parts = [HEAD]
    for title, model in SECTIONS:
        parts.append(f"## {title}\n\n{_summary(model)}\n\n{_table(model)}")
    parts.append("## Metrics\n\n" + _rows(METRIC_COLUMNS, [_metric(metric) for metric in all_metrics().values()]))
    parts.append("## Presets\n\n" + _rows(("preset", "passes"), [_preset(name) for name in PRESETS]))
    parts.append("## Passes")
    for name, definition in all_passes().items():
        text = (definition.options.__doc__ or "").strip()
        target = "the same" if definition.produces == "=" else definition.produces
        parts.append(f"### {name}\n\n{text} From {definition.takes} to {target}.\n\n{_table(definition.options)}")
    parts += ["## Steps", STEPS]
    for when, kinds in (("preprocess", PreStep), ("postprocess", PostStep)):
        for name, field in kinds.model_fields.items():
            step = next(argument for argument in get_args(field.annotation) if argument is not type(None))
            if step is not Function or kinds is PreStep:
                place = "preprocess and postprocess" if step is Function else when
                parts.append(f"### {name} ({place})\n\n{_summary(step)}\n\n{_table(step)}")
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _metric(metric: Metric) -> tuple[str, ...]:
    against = "labels" if metric.needs_labels else "the source"
    low, high = ("" if math.isinf(bound) else f"{bound:g}" for bound in metric.bounds)
    better = "higher" if metric.higher_is_better else "lower"
    return f"`{metric.name}`", against, low, high, better, metric.summary


def _summary(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())


def _table(model: type[BaseModel]) -> str:
    if not model.model_fields:
        return "No options."
    fields = [_field(model, field.alias or name, field) for name, field in model.model_fields.items()]
    return _rows(("field", "type", "default", "meaning"), fields)


def _rows(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table in Markdown."""
    lines = [columns, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    head, *rest = ["| " + " | ".join(cells) + " |" for cells in lines]
    return "\n".join([head, "|---" * len(columns) + "|", *rest])


def _field(model: type[BaseModel], name: str, field: FieldInfo) -> tuple[str, ...]:
    default = "required" if field.is_required() else _value(field.get_default(call_default_factory=True))
    sources = (model, name) == (SourceSpec, "framework")
    kind = ", ".join(f"`{source}`" for source in all_sources()) if sources else _type(field.annotation)
    return f"`{name}`", kind, default, field.description or ""


def _value(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "see below"
    if value is None or value in ((), {}, ""):
        return ""
    if isinstance(value, tuple):
        texts = ", ".join(map(str, value))
        return f"`{texts}`" if isinstance(value[0], VariantSpec) else f"`[{texts}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type(annotation: Any) -> str:
    """Return a type in words: choices by value, models as mappings."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is None:
        simple = {str: "text", int: "integer", float: "number", bool: "true or false", type(None): ""}
        return simple.get(annotation, "mapping")
    if origin.__name__ == "Literal":
        return ", ".join(f"`{value}`" for value in arguments)
    if origin is tuple or origin is list:
        inner = [argument for argument in arguments if argument is not Ellipsis]
        return f"list of {' or '.join(dict.fromkeys(_type(argument) for argument in inner))}"
    if origin is dict:
        return "mapping"
    if hasattr(annotation, "__metadata__"):
        return _type(arguments[0])
    return " or ".join(filter(None, dict.fromkeys(_type(argument) for argument in arguments)))


def _preset(name: str) -> tuple[str, ...]:
    steps = []
    for step, options in PRESETS[name]:
        text = ", ".join(f"{key}: {str(value).lower()}" for key, value in options.items())
        steps.append(f"`{step}`" + (f" ({text})" if text else ""))
    return f"`{name}`", ", ".join(steps)
