"""Keras models (.keras): a JSON tree of layers by module and name, and their weights.

Both versions of Keras import what the tree names; Keras 2 takes any module. So only the parts of Keras that a model is
made of are let through, and the user's own layers when they are registered. What is looked at is what Keras looks up
(`serialization_lib.py` of both): a function by its `config`, a class by its `registered_name`, then by its `class_name`
in its `module`, and both by `registered_name` in that module when there is no such class.
"""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from hone.errors import ArtifactError
from hone.names import shown

MODULES = re.compile(
    r"(tf_)?keras|(tf_)?keras\.(src\.|api\.|_tf_keras\.keras\.|api\._v2\.keras\.)?"
    r"(activations|constraints|dtype_policies|engine|initializers|layers|losses|metrics|mixed_precision|models|ops|"
    r"optimizers|quantizers|random|regularizers)(\.\w+)*"
)
FUNCTION_MODULES = re.compile(r"(tf_)?keras\.(activations|ops|losses|metrics|initializers)(\.\w+)*")
CLASS = re.compile(r"[A-Z]\w*", re.ASCII)
FUNCTION = re.compile(r"(?!(deserialize|serialize|get)$)[A-Za-z]\w*", re.ASCII)
DATA = frozenset({"__tensor__", "__numpy__", "__bytes__", "__keras_tensor__", "__ellipsis__", "__slice__", "__tuple__"})
TYPE_SPECS = {
    "TensorSpec": r"tensorflow\.python\.framework\.tensor(_spec)?",
    "SparseTensorSpec": r"tensorflow\.python\.framework\.sparse_tensor",
    "RaggedTensorSpec": r"tensorflow\.python\.ops\.ragged\.ragged_tensor",
}
FOREIGN_CODE = frozenset({"TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TensorFlowOpLayer"})
"""Layers that bring programs of other frameworks."""
CALLS = frozenset({"ClassMethod", "InstanceMethod", "InstanceProperty", "DenseFeatures", "SequenceFeatures"})
"""Layers of Keras 2 that call, or read, whatever of TensorFlow their configuration names."""
LOOKUPS = frozenset({"StringLookup", "IntegerLookup", "IndexLookup", "TextVectorization"})
TENSORFLOW_CALLS = frozenset({"TFOpLambda", "SlicingOpLambda"})
TENSORFLOW = re.compile(
    r"(compat\.v1\.)?(?!.*\.(get|deserialize)$)("
    r"(math|nn|linalg|image|signal|strings|sparse|bitwise|random|ragged|sets|keras\.activations)\.\w+|"
    r"__operators__\.\w+|abs|acos|acosh|add|add_n|argmax|argmin|argsort|asin|asinh|atan|atan2|atanh|batch_to_space|"
    r"boolean_mask|broadcast_to|cast|clip_by_norm|clip_by_value|complex|concat|convert_to_tensor|cos|cosh|cumsum|"
    r"divide|einsum|ensure_shape|equal|exp|expand_dims|eye|fill|floor|gather|gather_nd|greater|greater_equal|identity|"
    r"less|less_equal|linspace|logical_and|logical_not|logical_or|matmul|maximum|meshgrid|minimum|multiply|negative|norm|"
    r"not_equal|one_hot|ones|ones_like|pad|pow|range|rank|realdiv|reduce_\w+|repeat|reshape|reverse|reverse_sequence|"
    r"roll|round|saturate_cast|scalar_mul|scatter_nd|searchsorted|sequence_mask|shape|sigmoid|sign|sin|sinh|size|slice|"
    r"sort|space_to_batch|split|sqrt|square|squeeze|stack|stop_gradient|strided_slice|subtract|tan|tanh|"
    r"tensor_scatter_nd_\w+|tensordot|tile|transpose|truediv|truncatediv|truncatemod|unique|unstack|where|zeros|"
    r"zeros_like)",
    re.ASCII,
)
"""Functions of TensorFlow that compute; others read and write files, load libraries or models, or fetch them."""
LAMBDA = (
    "holds a Lambda layer, whose code would run on loading, so it is refused; "
    "replace it by an operation of keras.ops or a registered layer, and save the model anew"
)


def check_config(file: Path, config: dict[str, Any], library: ModuleType, is_registered: Callable[[str], bool]) -> None:
    """Check what the `config.json` of a model names.

    Args:
        file: for messages.
        config: the tree.
        library: the Keras that will read it.
        is_registered: true for the registered name of a class or function, of the user's own or of Keras.

    Raises:
        ArtifactError: it names code, or a file of the host.
    """
    for item in _objects(config):
        problem = _problem(item, library, is_registered)
        if problem:
            raise ArtifactError(f"{file}: {problem}")


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    """Yield every dictionary of the tree that names a class or a function."""
    left = [config]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if "class_name" in value:
                yield value
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _problem(item: dict[str, Any], library: ModuleType, is_registered: Callable[[str], bool]) -> str:
    name, content = item["class_name"], item.get("config")
    if not isinstance(name, str):
        return _unknown(name, item.get("module"))
    if name == "__lambda__" or _holds_lambda(content) or (name == "Lambda" and _has_code(content)):
        return LAMBDA
    if name in DATA:
        return ""
    if name == "__typespec__":
        module = TYPE_SPECS.get(str(item.get("spec_name")), "")
        fits = bool(module) and re.fullmatch(module, str(item.get("module"))) is not None
        return "" if fits else _unknown(item.get("spec_name"), item.get("module"))
    if name == "function":
        return _function_problem(item, library, is_registered)
    return _class_problem(item, is_registered)


def _function_problem(item: dict[str, Any], library: ModuleType, is_registered: Callable[[str], bool]) -> str:
    name, module = item.get("config"), item.get("module")
    if isinstance(name, str) and is_registered(name):
        return ""
    if not isinstance(name, str) or item.get("registered_name") not in (None, name, "function"):
        return _unknown(name, module)
    if module == "builtins":  # the word of Keras for its own; Keras 2 looks among Python's when it has none
        known = FUNCTION.fullmatch(name) and not hasattr(builtins, name)
    else:
        known = (
            FUNCTION.fullmatch(name)
            and isinstance(module, str)
            and FUNCTION_MODULES.fullmatch(module)
            and _is_public(library, f"{module}.{name}")
        )
    return "" if known else _unknown(name, module)


def _is_public(library: ModuleType, path: str) -> bool:
    """Return whether a Keras exports a function under its name, such as `keras.activations.relu`."""
    found: object = library
    for part in path.split(".")[1:]:
        found = getattr(found, part, None)
    return callable(found)


def _class_problem(item: dict[str, Any], is_registered: Callable[[str], bool]) -> str:
    name, module, content = item["class_name"], item.get("module"), item.get("config")
    # Where an older form is read the class goes by its name alone, whatever it is registered as.
    if name in FOREIGN_CODE:
        return f"holds a {name}, a program of another framework, so it is refused; export that program by itself"
    if name in CALLS or (name in TENSORFLOW_CALLS and not _computes(content)):
        called = content.get("function") if isinstance(content, dict) else None
        which = f" of {shown(called)}" if isinstance(called, str) else ""
        return f"holds a {name}{which}, which may do anything, so it is refused; put it into a registered layer"
    registered = item.get("registered_name", name)
    own = isinstance(registered, str) and is_registered(registered)
    if name in LOOKUPS or not own:
        files = [content.get(key) for key in ("vocabulary", "idf_weights")] if isinstance(content, dict) else []
        for path in files:
            if isinstance(path, str):
                return f"reads the file {shown(path)} of this host for a vocabulary; save it inside"
    if own:
        return ""
    known = CLASS.fullmatch(name) and registered in (None, name)
    if not known or (module is not None and not (isinstance(module, str) and MODULES.fullmatch(module))):
        return _unknown(name, module)
    return ""


def _computes(content: Any) -> bool:
    function = content.get("function") if isinstance(content, dict) else None
    return isinstance(function, str) and TENSORFLOW.fullmatch(function) is not None


def _unknown(name: object, module: object) -> str:
    return (
        f"uses {shown(str(name))}, which Keras doesn't know (module {shown(str(module))}); decorate it with "
        "@keras.saving.register_keras_serializable() in the module that source.loader names"
    )


def _holds_lambda(content: Any) -> bool:
    """Wrappers of cells may hold one, too."""
    return isinstance(content, dict) and any(
        isinstance(key, str) and key.endswith("_type") and value == "lambda" for key, value in content.items()
    )


def _has_code(content: Any) -> bool:
    """Keras 2 keeps a lambda as a list with its byte code; a registered function is there by its name."""
    parts = ("function", "output_shape", "mask")
    if not isinstance(content, dict) or isinstance(content.get("function"), list):
        return True
    return any(content.get(f"{part}_type") not in (None, "function", "raw") for part in parts)
