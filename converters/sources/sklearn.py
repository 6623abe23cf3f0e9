"""scikit-learn estimators and pipelines, exported with skl2onnx."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from converters.onnx_graph import rename_outputs, set_input_axes
from converters.passes.base import Built, PassContext
from converters.sources.base import Source, register
from hone.artifact import Artifact
from hone.errors import ArtifactError, PassError, RecipeError, UnavailableError, one_line
from hone.recipe import PICKLE_SUFFIXES, LoadedRecipe
from hone.signature import BATCH, Signature, TensorSpec
from hone.userload import call, load_function

FILE = "model.skops"


@register("sklearn")
class SklearnSource(Source):
    suffixes = (".skops", ".joblib")
    tools = ("scikit-learn", "skl2onnx", "onnx")

    def owns(self, model: Any) -> bool:
        base = sys.modules.get("sklearn.base")
        foreign = type(model).__module__.split(".", 1)[0] in ("xgboost", "lightgbm")
        return base is not None and isinstance(model, base.BaseEstimator) and not foreign

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        from hone.runtimes import runtime_class

        runtime_class("sklearn").require()
        import skops.io

        model = _load(loaded)
        spec = loaded.recipe.signature
        signature = spec.to_signature() if spec else _signature(model)
        if signature is None:
            raise RecipeError(
                f"{loaded.path}: signature: is required: the model doesn't say how many features it takes"
            )
        skops.io.dump(model, out / FILE)
        trusted = skops.io.get_untrusted_types(file=out / FILE)
        if trusted and not (loaded.recipe.source.loader or loaded.recipe.source.trust_pickle):
            raise RecipeError(f"{loaded.path}: source.file: holds types that skops doesn't trust: {', '.join(trusted)}")
        return Built(FILE, "fp32", signature, runtime_options={"trusted": sorted(trusted)})

    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Convert with skl2onnx, probabilities as a plain tensor.

        skl2onnx computes in float32 where scikit-learn uses float64: a value within rounding of a tree's threshold may
        fall on its other side.
        """
        from hone.runtimes.sklearn import read_estimator

        try:
            import onnx
            import skl2onnx
            from sklearn.base import is_classifier
        except ImportError as error:
            raise UnavailableError(f"{error.name} is not installed", "install the [trees] extra") from None
        estimator = read_estimator(model.entry, model.manifest.runtime_options.get("trusted", []))
        supported = min(opset, skl2onnx.__max_supported_opset__)
        try:
            graph = skl2onnx.convert_sklearn(
                estimator,
                initial_types=[(spec.name, _onnx_type(spec)) for spec in model.signature.inputs],
                options={id(estimator): {"zipmap": False}} if is_classifier(estimator) else None,
                target_opset=supported,
            )
        except Exception as error:
            raise PassError(f"export: skl2onnx can't convert {_describe(estimator)}: {one_line(error)}") from error
        rename_outputs(graph, model.signature.output_names)
        set_input_axes(graph, model.signature)
        onnx.save(graph, out / "model.onnx")
        return Built("model.onnx", runtime_options={}, details={"opset": supported, "nodes": len(graph.graph.node)})

    def inspect(self, file: Path) -> Signature | None:
        from hone.runtimes.sklearn import read_estimator

        if file.suffix != ".skops":
            return None
        try:
            return _signature(read_estimator(file, []))
        except ArtifactError as error:
            raise RecipeError(str(error)) from None


def _load(loaded: LoadedRecipe) -> Any:
    spec, field = loaded.recipe.source, f"{loaded.path}: source"
    if spec.loader:
        return call(load_function(spec.loader, loaded.root, f"{field}.loader"), spec.loader, f"{field}.loader")
    assert spec.file is not None
    file = loaded.file(spec.file, "source.file")
    if file.suffix in PICKLE_SUFFIXES:
        import joblib

        try:
            return joblib.load(file)
        except Exception as error:
            raise RecipeError(f"{field}.file: {file} can't be loaded: {one_line(error)}") from error
    from hone.runtimes.sklearn import read_estimator

    try:
        import skops.io

        trusted = skops.io.get_untrusted_types(file=file) if spec.trust_pickle else []
        return read_estimator(file, trusted)
    except (ArtifactError, ValueError, OSError, KeyError) as error:
        hint = "" if spec.trust_pickle else "; set trust_pickle: true if you made the file"
        raise RecipeError(f"{field}.file: {one_line(error)}{hint}") from error


def _signature(model: Any) -> Signature | None:
    """Return one float32 matrix of as many columns as the model was fitted on."""
    columns = getattr(model, "n_features_in_", None)
    if columns is None:
        return None
    return Signature(inputs=(TensorSpec(name="features", dtype="float32", shape=(BATCH, int(columns))),))


def _onnx_type(spec: TensorSpec) -> Any:
    from skl2onnx.common import data_types

    kinds = {
        "float32": data_types.FloatTensorType,
        "float64": data_types.DoubleTensorType,
        "int64": data_types.Int64TensorType,
        "int32": data_types.Int32TensorType,
        "bool": data_types.BooleanTensorType,
        "string": data_types.StringTensorType,
    }
    if spec.dtype not in kinds:
        raise PassError(f"export: skl2onnx takes no {spec.dtype} input ('{spec.name}'); use {', '.join(kinds)}")
    return kinds[spec.dtype]([None, *spec.shape[1:]])


def _describe(estimator: Any) -> str:
    steps = getattr(estimator, "steps", None)
    if not steps:
        return type(estimator).__name__
    return " > ".join(f"{name}: {type(step).__name__}" for name, step in steps)
