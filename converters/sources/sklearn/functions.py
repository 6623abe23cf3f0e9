"""FunctionTransformer of scikit-learn, which skl2onnx converts only without a function: NumPy's own functions.

Each is written so that it is as precise as NumPy's, also near zero, where log(1 + x) itself has few digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import numpy as np

from hone.errors import PassError

from .isolation import convert_isolation_forest

Node = Callable[..., str]
"""Adds an operator with inputs, and gives the name of its result; a number among the inputs becomes a constant."""


def _log1p(node: Node, x: str) -> str:
    """log(1 + x), plus what of x was lost when 1 was added; nothing was lost where the difference gives x again."""
    one_more = node("Add", x, 1.0)
    kept, log = node("Sub", one_more, 1.0), node("Log", one_more)
    corrected = node("Add", log, node("Div", node("Sub", x, kept), one_more))
    return node("Where", node("Equal", kept, x), log, corrected)


def _expm1(node: Node, x: str) -> str:
    """tanh(x / 2) * (exp(x) + 1), which is exp(x) - 1 without the difference of nearly equal numbers."""
    return node("Mul", node("Tanh", node("Mul", x, 0.5)), node("Add", node("Exp", x), 1.0))


def _operator(name: str) -> Callable[[Node, str], str]:
    return lambda node, x: node(name, x)


FUNCTIONS: dict[str, Callable[[Node, str], str]] = {
    "absolute": _operator("Abs"),
    "cos": _operator("Cos"),
    "exp": _operator("Exp"),
    "expm1": _expm1,
    "log": _operator("Log"),
    "log10": lambda node, x: node("Div", node("Log", x), float(np.log(10))),
    "log1p": _log1p,
    "log2": lambda node, x: node("Div", node("Log", x), float(np.log(2))),
    "negative": _operator("Neg"),
    "reciprocal": _operator("Reciprocal"),
    "sign": _operator("Sign"),
    "sin": _operator("Sin"),
    "sqrt": _operator("Sqrt"),
    "square": lambda node, x: node("Mul", x, x),
    "tanh": _operator("Tanh"),
}
KEEP_WHOLE = ("absolute", "negative", "sign", "square")
"""These give whole numbers for whole numbers; of the others NumPy makes float64, but for reciprocal."""


def refuse_functions(parts: Mapping[str, Any]) -> None:
    """Raise PassError when one of the estimators calls a function that has no ONNX form here.

    Args:
        parts: a model and the estimators in it, by name.
    """
    from sklearn.preprocessing import FunctionTransformer

    for name, part in parts.items():
        if not isinstance(part, FunctionTransformer) or part.func is None:
            continue
        if _known(part.func) and not part.kw_args:
            continue
        module = "numpy" if isinstance(part.func, np.ufunc) else getattr(part.func, "__module__", "?")
        called = f"{module}.{getattr(part.func, '__name__', '?')}{' with kw_args' if part.kw_args else ''}"
        raise PassError(
            f"export: step '{name.replace('__', '.')}' (FunctionTransformer) calls {called}, which has no ONNX form; "
            f"possible without kw_args: numpy's {', '.join(sorted(FUNCTIONS))}; or call it before the model"
        )


def own_converters() -> dict[str, dict[type, Callable[..., None]]]:
    """Return what skl2onnx must be told: how to convert FunctionTransformer with functions, and forests in less."""
    from sklearn.ensemble import IsolationForest
    from sklearn.preprocessing import FunctionTransformer

    return {
        "custom_conversion_functions": {FunctionTransformer: _convert, IsolationForest: convert_isolation_forest},
        "custom_shape_calculators": {FunctionTransformer: _shape},
    }


def _known(function: Any) -> bool:
    return isinstance(function, np.ufunc) and function.__name__ in FUNCTIONS


def _shape(operator: Any) -> None:
    """One matrix of all inputs' columns, of their type, or of floats where the function makes such."""
    from skl2onnx.common import data_types

    columns = [variable.type.shape[1] for variable in operator.inputs]
    kind = deepcopy(operator.inputs[0].type)
    function = operator.raw_operator.func
    if function is not None and not isinstance(kind, data_types.FloatTensorType | data_types.DoubleTensorType):
        _check_whole(function.__name__, kind)
        kind = kind if function.__name__ in KEEP_WHOLE else data_types.FloatTensorType()
    kind.shape = [operator.inputs[0].get_first_dimension(), None if None in columns else sum(columns)]
    operator.outputs[0].type = kind


def _check_whole(function: str, kind: Any) -> None:
    from skl2onnx.common import data_types

    whole = data_types.Int64TensorType | data_types.Int32TensorType
    if not isinstance(kind, whole) or function == "reciprocal":
        raise PassError(f"numpy.{function} of {type(kind).__name__.removesuffix('TensorType')} columns; use float32")


def _convert(scope: Any, operator: Any, container: Any) -> None:
    from skl2onnx.common import data_types
    from skl2onnx.proto import onnx_proto

    output = operator.outputs[0]
    kinds = {
        data_types.DoubleTensorType: (onnx_proto.TensorProto.DOUBLE, np.float64),
        data_types.Int64TensorType: (onnx_proto.TensorProto.INT64, np.int64),
        data_types.Int32TensorType: (onnx_proto.TensorProto.INT32, np.int32),
    }
    number, dtype = kinds.get(type(output.type), (onnx_proto.TensorProto.FLOAT, np.float32))

    def node(name: str, *inputs: str | float, **attributes: Any) -> str:
        result: str = scope.get_unique_variable_name(f"function_{name.lower()}")
        names = [each if isinstance(each, str) else constant(each) for each in inputs]
        container.add_node(name, names, result, name=scope.get_unique_operator_name(name), **attributes)
        return result

    def constant(value: float) -> str:
        result: str = scope.get_unique_variable_name("function_constant")
        container.add_initializer(result, number, [1], np.array([value], dtype).tolist())
        return result

    function = operator.raw_operator.func
    matrix = _joined(operator, node)
    if function is not None:
        if operator.inputs[0].type.__class__ is not output.type.__class__:
            matrix = node("Cast", matrix, to=number)
        matrix = FUNCTIONS[function.__name__](node, matrix)
    container.add_node("Identity", [matrix], output.full_name, name=scope.get_unique_operator_name("function"))


def _joined(operator: Any, node: Node) -> str:
    names = [variable.full_name for variable in operator.inputs]
    return names[0] if len(names) == 1 else node("Concat", *names, axis=1)
