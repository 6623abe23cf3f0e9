"""scikit-learn estimators as ONNX graphs, by skl2onnx."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hone.errors import PassError, one_line
from hone.signature import BATCH, Signature, TensorSpec

from ...graph.graph_signature import element_type, fit_outputs, joined_columns, merge_opsets, value_info
from ...graph.onnx_graph import rename_inputs
from ..trees.boosted_trees import TREE_OPSET
from .columns import column_transformer
from .functions import own_converters, refuse_functions


def estimator_graph(estimator: Any, signature: Signature, outputs: list[str], opset: int) -> Any:
    """Return an estimator as an ONNX model with the signature's inputs and these outputs.

    Raises:
        PassError: naming the step of the pipeline that can't be converted.
    """
    parts = {"model": estimator, **_steps(estimator)}
    _refuse_categories(parts)
    refuse_functions(parts)
    graph = _convert(estimator, signature, opset)
    del graph.graph.output[len(outputs) :]
    fit_outputs(graph, outputs, signature)
    merge_opsets(graph)
    return graph


def _convert(estimator: Any, signature: Signature, opset: int) -> Any:
    """Run skl2onnx on one matrix, or on named columns where the first step picks its own out of them."""
    import skl2onnx
    from sklearn.base import is_classifier

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
                **own_converters(),
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
