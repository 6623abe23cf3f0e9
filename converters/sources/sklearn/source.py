"""scikit-learn estimators and pipelines, exported with skl2onnx."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hone.artifact import Artifact
from hone.errors import ArtifactError, PassError, RecipeError, UnavailableError, one_line
from hone.recipe import PICKLE_SUFFIXES, LoadedRecipe
from hone.signature import BATCH, Signature, TensorSpec
from hone.userload import code_digest

from ...registry import Built, PassContext
from ..base import Source, call_loader, outputs_by_kind, register
from .columns import column_transformer, model_inputs
from .functions import function_converters, refuse_functions

FILE = "model.skops"
TREE_OPSET = 3
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
            raise UnavailableError(f"{error.name} is not installed", "install the [trees] extra") from None
        from ...graph.graph_signature import fit_outputs, merge_opsets

        estimator = read_estimator(model.entry, model.manifest.runtime_options)
        parts = {"model": estimator, **_steps(estimator)}
        _refuse_categories(parts)
        refuse_functions(parts)
        supported = min(opset, skl2onnx.__max_supported_opset__)
        graph = _convert(estimator, model.signature, supported)
        names = output_names(estimator)
        del graph.graph.output[len(names) :]
        fit_outputs(graph, names, model.signature)
        merge_opsets(graph)
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


def _convert(estimator: Any, signature: Signature, opset: int) -> Any:
    """Run skl2onnx on one matrix, or on named columns where the first step picks its own out of them."""
    import skl2onnx
    from sklearn.base import is_classifier

    from ...graph.onnx_graph import rename_inputs

    splits = column_transformer(estimator) is not None
    inputs = [(spec.name, _onnx_type(spec)) for spec in signature.inputs]
    joined = len(inputs) > 1 and not splits
    if joined:
        inputs = [("matrix", _onnx_type(_joined_spec(signature)))]
    try:
        with _plain_attributes():
            graph = skl2onnx.convert_sklearn(
                estimator,
                initial_types=inputs,
                options={id(estimator): {"zipmap": False}} if is_classifier(estimator) else None,
                target_opset={"": opset, "ai.onnx.ml": TREE_OPSET},
                **function_converters(),
            )
    except Exception as error:
        raise PassError(f"export: skl2onnx can't convert {_step(estimator, error)}: {one_line(error)}") from error
    # skl2onnx makes identifiers of names: "city of birth" is "city_of_birth" in its graph.
    rename_inputs(graph, [name for name, _ in inputs])
    if joined:
        _join(graph, signature)
    return graph


def _joined_spec(signature: Signature) -> TensorSpec:
    """Return the matrix that the column inputs make: of their one dtype, or of the widest number."""
    import numpy as np

    dtypes = {spec.dtype for spec in signature.inputs}
    if "string" in dtypes and len(dtypes) > 1:
        raise PassError("export: inputs mix strings and numbers; let a ColumnTransformer be the pipeline's first step")
    dtype = "string" if "string" in dtypes else str(np.result_type(*(np.dtype(name) for name in dtypes)))
    width = sum(int(spec.shape[1]) if len(spec.shape) == 2 else 1 for spec in signature.inputs)
    return TensorSpec(name="matrix", dtype=dtype, shape=(BATCH, width))


def _join(graph: Any, signature: Signature) -> None:
    """Put the nodes that join the column inputs before the converted graph, and declare the columns as its inputs."""
    from ...graph.graph_signature import element_type, joined_columns, value_info

    nodes = joined_columns(signature, element_type(_joined_spec(signature)), "matrix")
    rest = list(graph.graph.node)
    del graph.graph.node[:], graph.graph.input[:]
    graph.graph.node.extend([*nodes, *rest])
    graph.graph.input.extend(value_info(spec) for spec in signature.inputs)


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


@contextmanager
def _plain_attributes() -> Iterator[None]:
    """Turn numpy values in node attributes into Python's while skl2onnx runs.

    skl2onnx 1.20 passes numpy values and booleans for histogram gradient boosting, which onnx 1.23 no longer takes.
    """
    from skl2onnx.common import _container as container

    original = container.make_node

    def plain(value: Any) -> Any:
        if hasattr(value, "tolist") and getattr(value, "ndim", 2) < 2:
            value = value.tolist()
        if isinstance(value, list):
            return [plain(item) for item in value]
        return int(value) if isinstance(value, bool) else value

    def make_node(*arguments: Any, **attributes: Any) -> Any:
        return original(*arguments, **{name: plain(value) for name, value in attributes.items()})

    container.make_node = make_node
    try:
        yield
    finally:
        container.make_node = original


def _steps(estimator: Any) -> dict[str, Any]:
    """Return the estimator's parts that are estimators themselves, by parameter name, innermost last."""
    parts = {name: part for name, part in estimator.get_params(deep=True).items() if hasattr(part, "get_params")}
    return dict(sorted(parts.items(), key=lambda item: item[0].count("__")))


def _step(estimator: Any, error: Exception) -> str:
    """Return the step that an error of skl2onnx is about, or the whole model when it doesn't say."""
    text = str(error)
    for name, part in reversed(_steps(estimator).items()):
        if type(part).__name__ in text:
            return f"step '{name.replace('__', '.')}' ({type(part).__name__})"
    return type(estimator).__name__


def _refuse_categories(parts: dict[str, Any]) -> None:
    """skl2onnx converts categorical splits of histogram gradient boosting as if they were numeric."""
    for name, part in parts.items():
        categories = getattr(part, "is_categorical_", None)
        if categories is not None and any(categories):
            raise PassError(
                f"export: step '{name}' ({type(part).__name__}) splits on categories, which ONNX trees can't; "
                "encode them with OneHotEncoder or OrdinalEncoder and fit without categorical_features"
            )
