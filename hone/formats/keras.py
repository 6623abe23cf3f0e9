"""Keras models (.keras): a JSON tree of layers by module and name, and their weights.

Both versions of Keras import what the tree names; Keras 2 takes any module. So only the parts of Keras that a model is
made of are let through, and the user's own layers when they are registered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hone.errors import ArtifactError
from hone.names import shown

MODULES = re.compile(
    r"builtins|(tf_)?keras|(tf_)?keras\.(src\.|api\.|_tf_keras\.keras\.|api\._v2\.keras\.)?"
    r"(activations|constraints|dtype_policies|engine|initializers|layers|losses|metrics|mixed_precision|models|ops|"
    r"optimizers|quantizers|random|regularizers)(\.\w+)*"
)
FUNCTION_MODULES = re.compile(r"builtins|(tf_)?keras\.(src\.)?(activations|ops|losses|metrics|initializers)(\.\w+)*")
FOREIGN_CODE = frozenset({"TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"})
"""Layers that bring programs of other frameworks."""
LAMBDA = (
    "holds a Lambda layer, whose code would run on loading, so it is refused; "
    "replace it by an operation of keras.ops or a registered layer, and save the model anew"
)


def check_config(file: Path, config: dict[str, Any], is_registered: Callable[[str], bool]) -> None:
    """Check what the `config.json` of a model names.

    Args:
        file: for messages.
        config: the tree.
        is_registered: true for the registered name of a class or function of the user's own.

    Raises:
        ArtifactError: it names code, or a file of the host.
    """
    for item in _objects(config):
        problem = _problem(item, is_registered)
        if problem:
            raise ArtifactError(f"{file}: {problem}")


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every dictionary of the tree that names a class, a function or a module."""
    if isinstance(value, dict):
        if "class_name" in value or "module" in value:
            yield value
        for inner in value.values():
            yield from _objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _objects(inner)


def _problem(item: dict[str, Any], is_registered: Callable[[str], bool]) -> str:
    name, module, content = str(item.get("class_name")), item.get("module"), item.get("config")
    if name == "__lambda__" or (name == "Lambda" and _has_code(content)):
        return LAMBDA
    own = item.get("registered_name") or (content if name == "function" else name)
    if isinstance(own, str) and is_registered(own):
        return ""
    shown_name = content if name == "function" and isinstance(content, str) else name
    allowed = FUNCTION_MODULES if name == "function" else MODULES
    if module is not None and not (isinstance(module, str) and allowed.fullmatch(module)):
        return (
            f"uses {shown(str(shown_name))}, which Keras doesn't know (module {shown(str(module))}); decorate it with "
            "@keras.saving.register_keras_serializable() in the module that source.loader names"
        )
    if name in FOREIGN_CODE:
        return f"holds a {name}, a program of another framework, so it is refused; export that program by itself"
    if isinstance(content, dict) and any(isinstance(content.get(key), str) for key in ("vocabulary", "idf_weights")):
        return f"reads the file {shown(str(content.get('vocabulary')))} of this host for a vocabulary; save it inside"
    return ""


def _has_code(content: Any) -> bool:
    """Keras 2 keeps a lambda as a list with its byte code; a registered function is there by its name."""
    if not isinstance(content, dict):
        return True
    kinds = (content.get(f"{part}_type") for part in ("function", "output_shape", "mask"))
    return "lambda" in kinds or isinstance(content.get("function"), list)
