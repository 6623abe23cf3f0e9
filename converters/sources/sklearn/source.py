"""scikit-learn estimators and pipelines, exported with skl2onnx."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hone.artifact import Artifact
from hone.errors import ArtifactError, RecipeError, UnavailableError, one_line
from hone.recipe import PICKLE_SUFFIXES, LoadedRecipe
from hone.signature import Signature
from hone.userload import code_digest

from ...context import Built, PassContext
from ..base import Source, call_loader, outputs_by_kind, register
from .columns import model_inputs

FILE = "model.skops"
FOREIGN = ("xgboost", "lightgbm", "catboost")


@register("sklearn")
class SklearnSource(Source):
    suffixes = (".skops", ".joblib", ".pkl", ".pickle")
    tools = ("scikit-learn", "skl2onnx", "onnx")
    multiplies = False

    def owns(self, model: Any) -> bool:
        base = sys.modules.get("sklearn.base")
        return base is not None and isinstance(model, base.BaseEstimator) and not _is_foreign(model)

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        """Save the estimator as `model.skops`, and remember which of its types the user's own code brought."""
        from hone.runtimes import runtime_class
        from hone.runtimes.sklearn import STANDARD_TYPES

        runtime_class("sklearn").require()
        import skops.io

        spec = loaded.recipe.source
        model = _load(loaded)
        signature = _signature(loaded, model)
        try:
            skops.io.dump(model, out / FILE)
        except Exception as error:
            raise RecipeError(f"{loaded.path}: source: skops can't save the model: {one_line(error)}") from error
        trusted = set(skops.io.get_untrusted_types(file=out / FILE)) - STANDARD_TYPES
        options: dict[str, Any] = {"trusted": sorted(trusted)} if trusted else {}
        if trusted and spec.loader:
            code = code_digest(spec.loader, loaded.root)
            options |= {"loader": spec.loader, "root": str(loaded.root), "code": code}
        return Built(FILE, "fp32", signature, runtime_options=options)

    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Convert with skl2onnx, probabilities as a plain tensor.

        The graph computes in the dtype of its inputs, scikit-learn often in float64: with float32 inputs a value within
        rounding of a tree's threshold, or one that a scaler moved there, may fall on the threshold's other side.
        Declare float64 inputs where that matters.

        Raises PassError naming the step of the pipeline that skl2onnx can't convert.
        """
        from hone.runtimes.sklearn import output_names, read_estimator

        try:
            import onnx
            import skl2onnx
        except ImportError as error:
            raise UnavailableError(f"{error.name} is not installed", "pip install 'hone[trees]'") from None
        from .graph import estimator_graph

        estimator = read_estimator(model.entry, model.manifest.runtime_options)
        supported = min(opset, skl2onnx.__max_supported_opset__)
        graph = estimator_graph(estimator, model.signature, output_names(estimator), supported)
        onnx.checker.check_model(graph)
        onnx.save(graph, out / "model.onnx")
        return Built("model.onnx", runtime_options={}, details={"opset": supported, "nodes": len(graph.graph.node)})

    def inspect(self, file: Path) -> Signature | None:
        """Return the columns that the model was fitted on; a pickle is not opened for it."""
        from hone.runtimes import runtime_class
        from hone.runtimes.sklearn import read_estimator

        if file.suffix != ".skops":
            return None
        runtime_class("sklearn").require()
        return model_inputs(read_estimator(file, {}))

    def outputs_of(self, file: Path) -> list[str]:
        from hone.runtimes.sklearn import output_names, read_estimator

        try:
            return output_names(read_estimator(file, {}))
        except ImportError:
            return outputs_by_kind(True)


def _is_foreign(model: Any) -> bool:
    return type(model).__module__.split(".", 1)[0] in FOREIGN


def _load(loaded: LoadedRecipe) -> Any:
    """Return the fitted estimator that the recipe names."""
    from sklearn.base import BaseEstimator
    from sklearn.utils.validation import check_is_fitted

    spec, field = loaded.recipe.source, f"{loaded.path}: source"
    if spec.loader and spec.file:
        raise RecipeError(f"{field}: give 'file' or 'loader' for a scikit-learn model, not both")
    if spec.loader:
        where = f"{field}.loader: {spec.loader} returned"
        model = call_loader(loaded)
    else:
        assert spec.file is not None
        where = f"{field}.file: {spec.file} holds"
        model = _read(loaded.file(spec.file, "source.file"), spec.trust_pickle, f"{field}.file")
    if _is_foreign(model):
        package = type(model).__module__.split(".", 1)[0]
        raise RecipeError(f"{where} a {type(model).__name__}; set source.framework to {package} if that is a source")
    if not isinstance(model, BaseEstimator):
        raise RecipeError(f"{where} {type(model).__name__}, not a scikit-learn estimator")
    try:
        check_is_fitted(model)
    except Exception as error:
        raise RecipeError(f"{where} a {type(model).__name__} that is not fitted: {one_line(error)}") from error
    return model


def _read(file: Path, trust: bool, field: str) -> Any:
    """Load a pickle (the recipe trusts it, or it would not have been read) or a skops file."""
    if file.name.endswith(PICKLE_SUFFIXES):
        import joblib

        try:
            return joblib.load(file)
        except Exception as error:
            raise RecipeError(f"{field}: {file} can't be unpickled: {one_line(error)}") from error
    import skops.io

    from hone.runtimes.sklearn import STANDARD_TYPES, read_estimator

    try:
        found = skops.io.get_untrusted_types(file=file)
    except Exception as error:
        raise RecipeError(f"{field}: {file} is not a readable skops file: {one_line(error)}") from error
    unknown = sorted(set(found) - STANDARD_TYPES)
    if unknown and not trust:
        raise RecipeError(
            f"{field}: {file} holds types that are not scikit-learn's or numpy's, and loading it may run their code: "
            f"{', '.join(unknown)}; set 'trust_pickle: true' if you made it"
        )
    try:
        return read_estimator(file, {"trusted": unknown})
    except ArtifactError as error:
        raise RecipeError(f"{field}: {error}") from error


def _signature(loaded: LoadedRecipe, model: Any) -> Signature:
    """Return the recipe's inputs, checked against the columns the model was fitted on, or these."""
    spec, where = loaded.recipe.signature, f"{loaded.path}: signature"
    if spec is None:
        signature = model_inputs(model)
        if signature is None:
            raise RecipeError(f"{where}: is required: {type(model).__name__} doesn't say how many columns it takes")
        return signature
    signature = spec.to_signature()
    columns = getattr(model, "n_features_in_", None)
    widths = [tensor.shape[1] if len(tensor.shape) == 2 else 1 for tensor in signature.inputs]
    if columns and all(isinstance(width, int) for width in widths) and sum(map(int, widths)) != columns:
        raise RecipeError(f"{where}.inputs: have {sum(map(int, widths))} columns, the model was fitted on {columns}")
    fitted = [str(name) for name in getattr(model, "feature_names_in_", [])]
    if len(signature.inputs) > 1 and fitted and signature.input_names != fitted:
        raise RecipeError(f"{where}.inputs: must be the columns the model was fitted on, in order: {', '.join(fitted)}")
    return signature
