"""`hone init`: a commented recipe for a model file, and a stub of the data module that it names."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import yaml

from hone.errors import RecipeError, UnavailableError
from hone.files import atomic_write
from hone.names import is_name
from hone.recipe import PICKLE_SUFFIXES
from hone.signature import BATCH, Signature, TensorSpec

from .. import sources

TREES = ("sklearn", "xgboost", "lightgbm")
EXAMPLE = Signature(inputs=(TensorSpec(name="input", dtype="float32", shape=(BATCH, 3, 224, 224)),))
COLUMN = 34


@dataclass(frozen=True)
class Written:
    """What `write_recipe` wrote: a recipe, and the data module that it names."""

    recipe: Path
    data: Path
    kept_data: bool
    """The data module was there already, from an earlier recipe of this name with these inputs."""


def write_recipe(model: Path, target: Path | None, *, name: str | None = None, overwrite: bool = False) -> Written:
    """Write a recipe for a model file, and a stub of its data module beside it.

    The module is `data.py`, or has a name of its own where `data.py` is another model's.

    Args:
        model: a model file in a format that tells its framework and runs no code when it is read.
        target: the recipe's file or folder; default `recipe.yaml` beside the model.
        name: the model's name in the store; default: made from the file's name.
        overwrite: replace an existing recipe; a data module is never replaced.

    Raises:
        RecipeError: the file is missing, unreadable or of an unknown kind, the name is not valid, or the recipe exists.
    """
    source = _source(model)
    recipe = _target(model, target)
    if recipe.exists() and not overwrite:
        raise RecipeError(f"{recipe}: exists already; give another file with --out, or remove it")
    if name is not None and not is_name(name):
        raise RecipeError(
            f"--name: '{name}' must be 1-40 of a-z, 0-9, '.', '_', '-', starting and ending with a-z, 0-9"
        )
    signature = _signature(source, model)
    name = name or _name(model)
    stub = _data_module(recipe.name, source.name, signature or EXAMPLE)
    data = _data_file(recipe, name, stub, signature or EXAMPLE)
    kept = data.exists()
    outputs = signature.output_names if signature else []
    outputs = outputs or _outputs(source.name, model)
    file = Path(os.path.relpath(model.resolve(), recipe.parent.resolve())).as_posix()
    lines = [
        f"# Recipe for {model.name}. Fill in what is marked TODO, then: hone optimize {recipe.name}",
        *_entry("name", _scalar(name), "the model's name in the store"),
        "",
        *_source_lines(source.name, file, model),
        "",
        *_signature_lines(signature, outputs),
        "",
        *_data_lines(source.name, data),
        "",
        *_quality_lines(source.name, outputs),
        "",
        *_choice_lines(source.name),
    ]
    if not kept:
        atomic_write(data, stub)
    atomic_write(recipe, "\n".join(lines) + "\n")
    return Written(recipe, data, kept)


def _source(model: Path) -> sources.Source:
    if not model.is_file():
        raise RecipeError(f"{model}: no such file; give a model file")
    if model.name.endswith(PICKLE_SUFFIXES):
        raise RecipeError(
            f"{model}: a pickle, and loading a pickle runs code that it contains; save the model as .safetensors, "
            ".pt2, .keras, .onnx, .skops or .ubj, or write a recipe with 'trust_pickle: true' if you made it"
        )
    source = sources.for_file(model)
    if source is None:
        known = {suffix for each in sources.all_sources().values() for suffix in each.suffixes} - {*PICKLE_SUFFIXES}
        raise RecipeError(
            f"{model}: '{model.suffix}' tells no framework; known: {', '.join(sorted(known - {'.pickle'}))}. "
            "Any other model goes through source.loader in a recipe of your own"
        )
    return source


def _target(model: Path, target: Path | None) -> Path:
    if target is None:
        return model.parent / "recipe.yaml"
    return target / "recipe.yaml" if target.is_dir() else target


def _data_file(recipe: Path, name: str, stub: str, signature: Signature) -> Path:
    """Return the data module for a recipe: one that was written for it and its inputs before, or a new one.

    A module that is there for anything else is another model's: its rows are not this one's.
    """
    own = "data_" + re.sub(r"\W", "_", name)
    files = (recipe.parent / f"{stem}.py" for stem in chain(["data", own], (f"{own}_{number}" for number in count(2))))
    return next(file for file in files if not file.exists() or _fits(file, stub, signature))


def _fits(file: Path, stub: str, signature: Signature) -> bool:
    text = file.read_text(errors="replace")
    return text.startswith(stub.split("\n", 1)[0]) and all(f'"{spec.name}"' in text for spec in signature.inputs)


def _name(model: Path) -> str:
    """Make a valid name of the file's; a bare `model` takes the folder's instead, which says more."""
    stem = model.stem if model.stem != "model" else model.resolve().parent.name
    text = re.sub(r"[^a-z0-9._-]+", "-", stem.lower())[:40].strip("._-")
    return text if is_name(text) else "model"


def _signature(source: sources.Source, model: Path) -> Signature | None:
    try:
        return source.inspect(model)
    except UnavailableError:
        # The recipe can be written without the framework; only the inputs then have to be filled in by hand.
        return None


def _entry(key: str, value: str, comment: str) -> list[str]:
    """Return `key: value  # comment` with the comments in one column; a comment that doesn't fit goes above."""
    text = f"{key}: {value}"
    line = f"{text:<{COLUMN}}# {comment}" if comment else text
    indent = " " * (len(key) - len(key.lstrip(" -")))
    return [line] if len(text) < COLUMN or not comment else [f"{indent}# {comment}", text]


def _scalar(text: str) -> str:
    """Return a string as YAML, quoted where YAML would take it for something else."""
    plain = re.fullmatch(r"[\w./-]+", text) and yaml.safe_load(text) == text
    return text if plain else json.dumps(text)


def _source_lines(framework: str, file: str, model: Path) -> list[str]:
    lines = ["source:", *_entry("  file", _scalar(file), "relative to this recipe")]
    if model.suffix == ".safetensors":
        lines.append(f"  # {_weights(model)}")
        lines += _entry("  loader", "model:build", "TODO: a function in model.py that returns the module they fit")
    if framework == "keras":
        lines.append("  # loader: model:build           # if it has layers of your own: a module that registers them")
    return lines


def _weights(model: Path) -> str:
    """Describe the tensors of a safetensors file in one line."""
    from safetensors import safe_open

    from ..sources.torch.source import describe_weights

    count, parameters = describe_weights(model)
    with safe_open(model, "numpy") as weights:
        names = list(weights.keys())
        shapes = [f"{name} {weights.get_slice(name).get_shape()}" for name in names[:2]]
    return f"{count} tensors, {parameters:,} parameters: {', '.join(shapes)}{', …' if count > 2 else ''}"


def _signature_lines(signature: Signature | None, outputs: list[str]) -> list[str]:
    lines = ["signature:", "  inputs:"]
    comment = "TODO: name, dtype and shape of each input"
    if signature:
        comment = f"read from the file{'; batch is dynamic' if signature.batchable else ''}"
    for number, spec in enumerate((signature or EXAMPLE).inputs):
        shape = ", ".join(str(axis) for axis in spec.shape)
        lines += _entry(
            f"    {_scalar(spec.name)}", f"{{dtype: {spec.dtype}, shape: [{shape}]}}", "" if number else comment
        )
    text = f"  # outputs: [{', '.join(_scalar(name) for name in outputs)}]"
    comment = "# other names, in the model's order; shapes are measured"
    lines += [f"{text:<{COLUMN}}{comment}"] if len(text) < COLUMN else [f"  {comment}", text]
    return lines


def _data_lines(framework: str, data: Path) -> list[str]:
    text = f"TODO in {data.name}, or an .npz or .parquet file: judges variants"
    lines = _entry("evaluation", f"{data.stem}:evaluation", text)
    if framework not in TREES:
        text = f"TODO in {data.name}: rows that int8 ranges come from, not those of evaluation"
        lines += _entry("calibration", f"{data.stem}:calibration", text)
    return lines


def _quality_lines(framework: str, outputs: list[str]) -> list[str]:
    metric, comment = _metric(framework, outputs)
    return [
        "quality:",
        *_entry("  metric", metric, comment),
        "",
        "budget:                           # limits a variant must meet; one left out is no limit",
        *_entry("  quality_drop", "0.01", "largest loss against the source, in the metric's unit; or '1%'"),
        "  # p95_ms: 10".ljust(COLUMN) + "# largest 95th percentile latency of a call, ms",
        "  # size_mb: 20".ljust(COLUMN) + "# largest size on disk, MB",
        "  # peak_rss_mb: 500".ljust(COLUMN) + "# largest memory of a process that runs it, MiB",
        *_entry("  at", "{batch: 1, threads: all}", "where latency is judged and variants are ranked"),
    ]


def _metric(framework: str, outputs: list[str]) -> tuple[str, str]:
    """Return a metric that fits the model's first output, and a comment."""
    if framework not in TREES:
        return "likeness", "to the source's outputs; for embeddings cosine; with labels: accuracy, f1, rmse, mae"
    if outputs[0] in ("prediction", "output"):
        return "rmse", "against the labels of evaluation; or mae, likeness, or module:function"
    return "accuracy", "against the labels of evaluation; or f1, or module:function"


def _outputs(framework: str, model: Path) -> list[str]:
    """Return the names of a model's outputs where its file holds no signature of them."""
    if framework not in TREES:
        return ["scores"]
    try:
        if framework == "sklearn":
            from hone.runtimes.sklearn import output_names, read_estimator

            return output_names(read_estimator(model, {}))
        if framework == "lightgbm":
            from hone.runtimes import lightgbm

            classifies = lightgbm.objective_of(lightgbm.read_booster(model)) in lightgbm.CLASSIFIERS
        else:
            from hone.runtimes.xgboost import BINARY, MULTICLASS, objective_of, read_booster

            classifies = objective_of(read_booster(model)) in (BINARY, MULTICLASS, "multi:softmax")
    except ImportError:
        classifies = True
    return ["label", "probabilities"] if classifies else ["prediction"]


def _choice_lines(framework: str) -> list[str]:
    lines = [*_entry("objective", "latency", "what decides among variants that meet the budget; or size, quality"), ""]
    lines.append("variants:")
    if framework in TREES:
        return [
            *lines,
            "  - onnx-fp32".ljust(COLUMN) + "# trees are compared, not multiplied: int8 and fp16 gain nothing",
        ]
    chosen = {
        "onnx-fp32": "the same numbers, on ONNX Runtime",
        "onnx-fp16": "half the size; fast on GPUs",
        "onnx-int8-dynamic": "int8 weights; for dense layers and transformers",
        "onnx-int8-static": "int8 weights and activations; for convolutions",
    }
    lines += [f"  - {variant}".ljust(COLUMN) + f"# {comment}" for variant, comment in chosen.items()]
    more = {
        "mlx-fp32": "on Apple Silicon",
        "mlx-q8": "on Apple Silicon, 8-bit weights",
        "tensorrt-fp16": "on an NVIDIA GPU",
        "tensorrt-int8": "on an NVIDIA GPU",
    }
    if framework == "torch":
        more = {"pruned50-onnx-int8": "half the channels; set 'train' to fine-tune what is left", **more}
    return lines + [f"  # - {variant}".ljust(COLUMN) + f"# {comment}" for variant, comment in more.items()]


def _data_module(recipe: str, framework: str, signature: Signature) -> str:
    """Return the stub: functions that say what to return, and raise until they do."""
    inputs = "\n".join(f'        "{spec.name}": {spec.describe()}' for spec in signature.inputs)
    functions = [
        f'''def evaluation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return (inputs, labels): rows that the model was not trained on; a few hundred or more.

    inputs, by name, one row on axis 0 for each label:
{inputs}
    labels: the right answer for each row; return the inputs alone if the metric is likeness or cosine.
    """
    raise NotImplementedError("TODO: return the evaluation rows, see the docstring")'''
    ]
    if framework not in TREES:
        functions.append(
            f'''def calibration() -> dict[str, np.ndarray]:
    """Return inputs alone: 100 to 500 typical rows, none of them in evaluation.

    by name:
{inputs}
    """
    raise NotImplementedError("TODO: return the calibration rows, see the docstring")'''
        )
    title = f'"""Data for {recipe}: fill in what is marked TODO."""'
    head = "\n\n".join([title, "from __future__ import annotations", "import numpy as np\n"])
    return "\n\n".join([head, *(f"{function}\n" for function in functions)])
