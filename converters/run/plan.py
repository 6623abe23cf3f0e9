"""Plan: from a recipe's variants to a tree of passes whose shared prefixes run once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from hone import runtimes
from hone.errors import RecipeError, UnavailableError, did_you_mean
from hone.recipe import LoadedRecipe, VariantSpec

from ..passes import Pass, all_passes

_TENSORRT_INT8 = {"activation_type": "qint8", "symmetric_activations": True}

PRESETS: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    "onnx-fp32": (("export", {}), ("simplify", {})),
    "onnx-fp16": (("export", {}), ("simplify", {}), ("fp16", {})),
    "onnx-int8-dynamic": (("export", {}), ("simplify", {}), ("quantize_dynamic", {})),
    "onnx-int8-static": (("export", {}), ("simplify", {}), ("quantize_static", {})),
    "onnx-weights-int8": (("export", {}), ("simplify", {}), ("quantize_weights", {})),
    "onnx-weights-int4": (("export", {}), ("simplify", {}), ("quantize_weights", {"bits": 4})),
    "onnx-int8-tuned": (("export", {}), ("simplify", {}), ("quantize_dynamic", {}), ("tune", {})),
    "onnx-smooth-int8-tuned": (
        ("export", {}),
        ("simplify", {}),
        ("smooth", {}),
        ("quantize_dynamic", {}),
        ("tune", {}),
    ),
    "onnx-smooth-mixed": (("export", {}), ("simplify", {}), ("smooth", {}), ("quantize_mixed", {})),
    "onnx-fused-fp32": (("export", {}), ("fuse", {})),
    "onnx-fused-int8": (("export", {}), ("fuse", {}), ("quantize_dynamic", {})),
    "onnx-fused-mixed": (("export", {}), ("fuse", {}), ("quantize_mixed", {})),
    "onnx-fused-weights-int8": (("export", {}), ("fuse", {}), ("quantize_weights", {})),
    "openvino-fp32": (("export", {}), ("simplify", {}), ("openvino", {})),
    "openvino-bf16": (("export", {}), ("simplify", {}), ("openvino", {"precision": "bfloat16"})),
    "openvino-int8": (("export", {}), ("simplify", {}), ("openvino", {}), ("quantize_nncf", {})),
    "openvino-int8-bf16": (
        ("export", {}),
        ("simplify", {}),
        ("openvino", {"precision": "bfloat16"}),
        ("quantize_nncf", {}),
    ),
    "openvino-unpadded-fp32": (("export", {}), ("simplify", {}), ("skip_padding", {}), ("openvino", {})),
    "openvino-unpadded-int8": (
        ("export", {}),
        ("simplify", {}),
        ("skip_padding", {}),
        ("openvino", {}),
        ("quantize_nncf", {}),
    ),
    "openvino-unpadded-bf16": (
        ("export", {}),
        ("simplify", {}),
        ("skip_padding", {}),
        ("openvino", {"precision": "bfloat16"}),
    ),
    "openvino-unpadded-int8-bf16": (
        ("export", {}),
        ("simplify", {}),
        ("skip_padding", {}),
        ("openvino", {"precision": "bfloat16"}),
        ("quantize_nncf", {}),
    ),
    "onnx-int8-qat": (("qat", {}), ("simplify", {})),
    "litert": (("litert", {}),),
    "litert-fp16": (("litert", {}), ("quantize_litert", {"mode": "weights", "weight_bits": 16})),
    "litert-dynamic": (("litert", {}), ("quantize_litert", {"mode": "dynamic"})),
    "litert-int8": (("litert", {}), ("quantize_litert", {})),
    "pruned30-onnx-fp32": (("prune", {"ratio": 0.3}), ("export", {}), ("simplify", {})),
    "pruned30-onnx-int8": (("prune", {"ratio": 0.3}), ("export", {}), ("simplify", {}), ("quantize_static", {})),
    "pruned50-onnx-fp32": (("prune", {"ratio": 0.5}), ("export", {}), ("simplify", {})),
    "pruned50-onnx-int8": (("prune", {"ratio": 0.5}), ("export", {}), ("simplify", {}), ("quantize_static", {})),
    "mlx-fp32": (("export", {}), ("simplify", {}), ("mlx", {})),
    "mlx-q8": (("export", {}), ("simplify", {}), ("mlx", {"bits": 8})),
    "mlx-q4": (("export", {}), ("simplify", {}), ("mlx", {"bits": 4})),
    "onnx-cuda-fp16": (("export", {}), ("simplify", {}), ("fp16", {}), ("providers", {"order": ["cuda", "cpu"]})),
    "onnx-tensorrt-fp16": (
        ("export", {}),
        ("simplify", {}),
        ("fp16", {}),
        ("providers", {"order": ["tensorrt", "cuda", "cpu"]}),
    ),
    "python-process": (("python_process", {}),),
    "tensorrt-fp16": (("export", {}), ("simplify", {}), ("fp16", {}), ("tensorrt", {})),
    "tensorrt-bf16": (("export", {}), ("simplify", {}), ("bf16", {}), ("tensorrt", {})),
    "tensorrt-int8": (("export", {}), ("simplify", {}), ("quantize_static", _TENSORRT_INT8), ("tensorrt", {})),
}


@dataclass(frozen=True)
class Step:
    """A pass with its full, checked options."""

    name: str
    options: dict[str, Any]

    @property
    def definition(self) -> Pass:
        return all_passes()[self.name]

    @property
    def key(self) -> str:
        return json.dumps([self.name, self.options], sort_keys=True)


@dataclass(frozen=True)
class Variant:
    """A named chain of passes."""

    name: str
    steps: tuple[Step, ...]
    unavailable: UnavailableError | None = None
    """Set when this host lacks what a step needs."""


@dataclass
class Node:
    """One pass in the tree, with the variants whose chains go through it."""

    step: Step
    parent: Node | None
    variants: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        chain, node = [self.step.name], self.parent
        while node:
            chain.append(node.step.name)
            node = node.parent
        return " > ".join(reversed(chain))


@dataclass(frozen=True)
class Plan:
    """What will run: variants, and the tree's nodes in an order in which parents come first."""

    source: str
    variants: tuple[Variant, ...]
    nodes: tuple[Node, ...]
    leaves: dict[str, Node]


def check_variants(loaded: LoadedRecipe, only: tuple[str, ...] = ()) -> None:
    """Raise for unknown presets, passes and options and names given twice, before a source is read, maybe for minutes.

    Raises:
        RecipeError: as `make_plan`, but for what depends on the source's framework.
    """
    names = []
    for index, spec in enumerate(loaded.recipe.variants):
        where = f"{loaded.path}: variants[{index}]"
        if not spec.is_auto:
            _check_needs(loaded, _steps(spec, where), where)
        names.append(str(spec))
    _check_names(loaded, names, () if loaded.recipe.is_auto else only)


def _check_names(loaded: LoadedRecipe, names: list[str], only: tuple[str, ...], source: str = "") -> None:
    for index, name in enumerate(names):
        if name in names[:index] or name == source:
            raise RecipeError(f"{loaded.path}: variants[{index}]: the name '{name}' is taken; give it another 'name'")
    for name in only:
        if name not in names:
            raise RecipeError(f"--only: no variant '{name}' in {loaded.path.name}{did_you_mean(name, names)}")


def _check_needs(loaded: LoadedRecipe, steps: tuple[Step, ...], where: str) -> None:
    for step in steps:
        if "calibration" in step.definition.needs and loaded.recipe.calibration is None:
            raise RecipeError(
                f"{where}: pass '{step.name}' needs calibration rows; name a data set in 'calibration', or leave the "
                "variant out"
            )


def _steps(spec: VariantSpec, where: str) -> tuple[Step, ...]:
    return _preset_steps(spec, where) if spec.preset else _explicit_steps(spec, where)


def make_plan(loaded: LoadedRecipe, source: str, only: tuple[str, ...] = ()) -> Plan:
    """Turn a recipe's variants into a plan; `auto` is left out, which `candidates` puts presets in the place of.

    Args:
        loaded: the recipe.
        source: the framework of the source model.
        only: names of the variants to make; empty makes all.

    Raises:
        RecipeError: naming the variant and pass that is unknown, doesn't fit or has wrong options.
    """
    specs = [(index, spec) for index, spec in enumerate(loaded.recipe.variants) if not spec.is_auto]
    variants = [_variant(loaded, index, spec, source) for index, spec in specs]
    names = [variant.name for variant in variants]
    _check_names(loaded, names, only, source)
    chosen = tuple(variant for variant in variants if not only or variant.name in only)
    nodes, leaves = _tree(chosen)
    return Plan(source, chosen, nodes, leaves)


def _tree(variants: tuple[Variant, ...]) -> tuple[tuple[Node, ...], dict[str, Node]]:
    nodes: dict[tuple[str, ...], Node] = {}
    leaves: dict[str, Node] = {}
    for variant in variants:
        if variant.unavailable:
            continue
        path: tuple[str, ...] = ()
        parent: Node | None = None
        for step in variant.steps:
            path = (*path, step.key)
            parent = nodes.setdefault(path, Node(step, parent))
            parent.variants.append(variant.name)
        assert parent is not None
        leaves[variant.name] = parent
    return tuple(nodes.values()), leaves


def _variant(loaded: LoadedRecipe, index: int, spec: VariantSpec, source: str) -> Variant:
    where = f"{loaded.path}: variants[{index}]"
    steps = _steps(spec, where)
    _check_needs(loaded, steps, where)
    runtime, unavailable = source, None
    for step in steps:
        definition = step.definition
        if not definition.accepts(runtime) or (definition.consumes == "*" and runtime not in _sources()):
            raise RecipeError(
                f"{where}: pass '{step.name}' takes {definition.takes}, but what it would get is {runtime}"
            )
        if definition.runtime and unavailable is None:
            unavailable = _missing(definition.runtime)
        unavailable = unavailable or definition.options.model_validate(step.options).missing(runtime)
        runtime = definition.output_of(runtime)
    return Variant(str(spec), steps, unavailable)


def _sources() -> list[str]:
    from ..sources import all_sources

    return list(all_sources())


def _missing(runtime: str) -> UnavailableError | None:
    try:
        runtimes.runtime_class(runtime).require()
    except UnavailableError as error:
        return error
    return None


def _preset_steps(spec: VariantSpec, where: str) -> tuple[Step, ...]:
    assert spec.preset is not None
    if spec.preset not in PRESETS:
        raise RecipeError(f"{where}: unknown preset '{spec.preset}'{did_you_mean(spec.preset, PRESETS)}")
    preset = PRESETS[spec.preset]
    names = [name for name, _ in preset]
    for name in spec.options:
        if name not in names:
            raise RecipeError(
                f"{where}.options: preset '{spec.preset}' has no pass '{name}'{did_you_mean(name, names)}"
            )
    return tuple(
        _step(name, {**defaults, **spec.options.get(name, {})}, f"{where}.options.{name}") for name, defaults in preset
    )


def _explicit_steps(spec: VariantSpec, where: str) -> tuple[Step, ...]:
    steps = []
    for position, item in enumerate(spec.passes):
        place = f"{where}.passes[{position}]"
        if isinstance(item, str):
            steps.append(_step(item, {}, place))
            continue
        if len(item) != 1:
            raise RecipeError(f"{place}: write one pass an item, such as '- quantize_static: {{method: entropy}}'")
        name, options = next(iter(item.items()))
        steps.append(_step(name, options or {}, place))
    return tuple(steps)


def _step(name: str, options: dict[str, Any], where: str) -> Step:
    passes = all_passes()
    if name not in passes:
        raise RecipeError(f"{where}: unknown pass '{name}'{did_you_mean(name, passes)}")
    try:
        checked = passes[name].options.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        option = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            fields = passes[name].options.model_fields
            raise RecipeError(
                f"{where}: pass '{name}' has no option '{option}'{did_you_mean(option, fields)}"
            ) from None
        raise RecipeError(
            f"{where}: option '{option}' of pass '{name}': {first['msg']}, got {first['input']!r}"
        ) from None
    return Step(name, checked.model_dump(mode="json"))
