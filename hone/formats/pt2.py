"""Exported programs of torch (.pt2): nothing in one may run code before, while or after it is loaded.

`torch.export.load` unpickles sample inputs and constants, loads compiled libraries, gives sizes and guards to `eval`,
looks operators up by any path below `torch`, and writes names into generated Python. So everything is allowed by form:
pickles of tensors, operators of torch's own sets, arithmetic on sizes, and names that are names.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hone.errors import ArtifactError, one_line
from hone.formats.expressions import check_guard, check_size
from hone.names import shown

MEMBERS = re.compile(
    r"archive_format|archive_version|byteorder|\.data/[\w.]+|\.format_version|\.storage_alignment|extra/.*|"
    r"models/[\w.-]+\.json|data/(weights|constants|sample_inputs)/[\w.-]+"
)
NAMESPACES = frozenset({"aten", "prims", "quantized_decomposed", "higher_order"})
CONTROL = frozenset({"cond", "while_loop", "map_impl", "scan", "wrap_with_set_grad_enabled", "wrap_with_autocast"})
"""Operators of operators that only arrange others."""
REFUSED = re.compile(r"torch\.ops\.aten\.from_file(\..*)?")
"""It maps a file of the host, for writing too."""
SCALARS = re.compile(
    r"_operator\.(eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_|lshift|rshift|getitem)|"
    r"math\.(trunc|ceil|floor)|torch\.sym_(not|int|float|ite|max|min|sqrt|sum)|torch\._sym_sqrt"
)
TREES = frozenset({"builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
WORD = re.compile(r"[\w.]*")
TEXT = re.compile(r"[\w., >:+/-]*")
"""What may hold more than names: parameters' names, and texts such as 'bhd,bd->bh' or 'cuda:0'."""
TEXT_KEYS = frozenset(
    {"as_string", "as_strings", "type", "torch_version", "fqn", "parameter_name", "buffer_name", "tensor_constant_name"}
)


class _ProblemError(Exception):
    """What is wrong, without the file."""


def check_program(file: Path) -> None:
    """Raise ArtifactError when a .pt2 file holds more than an ordinary exported program, or can't be read."""
    import torch

    try:
        reader = torch._C.PyTorchFileReader(str(file))
        names = list(reader.get_all_records())
        with zipfile.ZipFile(file) as archive:
            listed = archive.namelist()
    except (RuntimeError, OSError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{file}: not a readable .pt2 exported program: {one_line(error)}") from error
    try:
        _check_members(names, listed)
        for name in names:
            _check_member(name, reader)
    except _ProblemError as problem:
        raise ArtifactError(
            f"{file}: {problem}, which could run code; set 'trust_pickle: true' in the source if you made the file, "
            "or save it anew with torch.export.save"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, RuntimeError) as error:
        raise ArtifactError(f"{file}: not a readable .pt2 exported program: {one_line(error)}") from error


def _check_members(names: list[str], listed: list[str]) -> None:
    """torch reads the archive twice, by two libraries: both must find the same in it."""
    if sorted(name.partition("/")[2] for name in listed) != sorted(names) or len(set(names)) != len(names):
        raise _ProblemError("holds an archive of an older form, or one that reads differently in two ways")
    if "models/model.json" not in names:
        raise _ProblemError("holds no models/model.json")
    for name in names:
        if not MEMBERS.fullmatch(name):
            kind = "a compiled library" if name.startswith("data/aotinductor") else "an unknown member"
            raise _ProblemError(f"holds {kind}, {shown(name)}")


def _check_member(name: str, reader: Any) -> None:
    if name.startswith("models/"):
        _check_graph(json.loads(reader.get_record(name)), name)
    elif name.startswith(("data/weights/", "data/constants/")) and name.endswith("_config.json"):
        folder = name.rpartition("/")[0]
        for key, payload in json.loads(reader.get_record(name))["config"].items():
            _check_payload(f"{folder}/{key}", folder, payload, reader)
    elif name.endswith(".pt"):
        _check_pickle(name, reader.get_record(name))


def _check_payload(where: str, folder: str, payload: dict[str, Any], reader: Any) -> None:
    path = payload["path_name"]
    if not re.fullmatch(r"(weight|tensor)_\d+", path):
        raise _ProblemError(f"{where} is an object of a class, {shown(path)}")
    if payload["use_pickle"]:
        _check_pickle(where, reader.get_record(f"{folder}/{path}"))


def _check_pickle(name: str, content: bytes) -> None:
    """Tensors and plain containers only: torch's restricted unpickler must be enough."""
    import torch

    if not content:
        return
    try:
        torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    except Exception as error:  # noqa: BLE001 - whatever stops the restricted unpickler is a refusal
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise _ProblemError(
            f"{name} is a pickle that needs {found.group(1) if found else 'more than tensors'}"
        ) from None


def _check_graph(program: Any, name: str) -> None:
    for path, value in _leaves(program, ()):
        problem = _problem(path, value)
        if problem:
            raise _ProblemError(f"{name}: {'.'.join(str(part) for part in path)[-80:]}: {problem}")


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield every text with the keys that lead to it; keys are names, too, and come as texts of their own."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, "key"), key
            yield from _leaves(inner, (*path, key))
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner, path)
    elif isinstance(value, str):
        yield path, value


def _problem(path: tuple[str, ...], text: str) -> str:
    """Return what a text of a program is that it may not be, or an empty string."""
    key = path[-1]
    if path[-3:-1] == ("nodes", "metadata") or path[:-1] == ("graph_module", "metadata"):
        return ""  # for people: torch keeps it beside the nodes
    if key == "expr_str" or path == ("range_constraints", "key"):
        return check_size(text)
    if key == "guards_code":
        return check_guard(text)
    if key == "as_operator" or (key == "target" and "nodes" in path):
        return _operator_problem(text)
    if key in ("in_spec", "out_spec"):
        return _tree_problem(json.loads(text)[1]) if text else ""
    return "" if (TEXT if key in TEXT_KEYS else WORD).fullmatch(text) else shown(text)


def _operator_problem(target: str) -> str:
    if SCALARS.fullmatch(target):
        return ""
    parts = target.split(".")
    if parts[:2] != ["torch", "ops"] or not 4 <= len(parts) <= 5 or parts[2] not in NAMESPACES:
        return f"the operator {shown(target)} is not torch's own"
    if REFUSED.fullmatch(target) or (parts[2] == "higher_order" and parts[3] not in CONTROL):
        return f"the operator {shown(target)} can reach outside the model"
    return "" if all(part.isidentifier() for part in parts) and _is_operator(parts[2:]) else shown(target)


def _is_operator(parts: list[str]) -> bool:
    """True when the path leads to an operator, and not to some attribute of one."""
    import torch

    value: Any = torch.ops
    for part in parts:
        value = getattr(value, part, None)
    return isinstance(value, torch._ops.OpOverload | torch._ops.OpOverloadPacket | torch._ops.HigherOrderOperator)


def _tree_problem(tree: Any) -> str:
    """The nesting of inputs and outputs: plain containers, with names for keys."""
    if tree["type"] is None:
        return ""
    if tree["type"] not in TREES:
        return f"a container of type {shown(str(tree['type']))}"
    keys = json.loads(tree["context"]) if isinstance(tree["context"], str) else tree["context"]
    for key in keys if isinstance(keys, list) else [] if keys is None else [keys]:
        if not isinstance(key, str | int) or not WORD.fullmatch(str(key)):
            return f"a key {shown(str(key))}"
    return next(filter(None, map(_tree_problem, tree["children_spec"])), "")
