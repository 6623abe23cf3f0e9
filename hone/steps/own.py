"""A step of the user's own: a function of one Python file, which is copied into the artifact."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hone.errors import InputError, one_line
from hone.signature import Dtype, Shape
from hone.steps.base import Columns, ColumnSpec, Run, Specs, Step, StepError


class Declared(BaseModel):
    """A column that a function takes or gives."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dtype: Dtype = Field("float32", description="As of the signature's inputs.")
    shape: Shape = Field(description="Sizes, and names for dynamic axes: [batch, 4].")


class Function(Step):
    """A function of your own: it gets a dict of arrays, rows first, and returns one.

    Its file is copied into the artifact and runs wherever that is served, so it may import installed packages, and no
    files beside it. Raise ValueError for rows that it can't work on: the caller gets its text.
    """

    file_fields: ClassVar[tuple[str, ...]] = ("file",)

    call: str = Field(pattern=r"^[A-Za-z_][\w]*:[A-Za-z_]\w*$", description="`module:function` beside the recipe.")
    inputs: dict[str, Declared] = Field(min_length=1, description="What it takes, by name.")
    outputs: dict[str, Declared] = Field(min_length=1, description="What it returns, by name.")
    file: str = Field("", description="The module's file; default: its name with .py.")

    def takes(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        return _specs(self.inputs)

    def gives(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        return _specs(self.outputs)

    def drops(self) -> tuple[str, ...]:
        return tuple(name for name in self.inputs if name not in self.outputs)

    def bind(self, folder: Path, known: Specs) -> Run:
        function = self._loaded(folder / self.module_file)

        def run(columns: Columns) -> Columns:
            try:
                given = function({name: columns[name] for name in self.inputs})
            except ValueError as error:
                raise InputError(f"{self.call}: {one_line(error)}") from None
            missing = [name for name in self.outputs if not isinstance(given, Mapping) or name not in given]
            if missing:
                raise StepError(f"{self.call} returned no '{missing[0]}'; return a dict of arrays by name")
            return {name: np.asarray(given[name]) for name in self.outputs}

        return run

    @property
    def module_file(self) -> str:
        """The file of its module, as the recipe's folder or the artifact has it."""
        return self.file or f"{self.call.partition(':')[0]}.py"

    def _loaded(self, path: Path) -> Callable[[Columns], Any]:
        name = self.call.partition(":")[2]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise StepError(f"{path.name}: cannot be read: {error.strerror}") from None
        _check_alone(path, content)
        called = f"hone_step_{hashlib.sha256(content).hexdigest()[:16]}"
        spec = importlib.util.spec_from_file_location(called, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[called] = module  # where dataclasses look for what annotations mean
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # noqa: BLE001 - it is the user's code
            sys.modules.pop(called, None)
            raise StepError(f"{path.name} fails to import: {type(error).__name__}: {one_line(error)}") from None
        function = getattr(module, name, None)
        if not callable(function):
            raise StepError(f"{path.name} has no function '{name}'")
        return function


def _check_alone(path: Path, content: bytes) -> None:
    """Raise StepError when a module imports files beside it: it goes into artifacts alone."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError) as error:
        raise StepError(f"{path.name}: {one_line(error)}") from None
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or "."] if not node.level else ["."]
        for name in names:
            first = name.partition(".")[0]
            if not first or path.with_name(f"{first}.py").is_file() or path.with_name(first).is_dir():
                raise StepError(f"{path.name} imports '{name}' beside it; a step is one file, which artifacts carry")


def _specs(declared: Mapping[str, Declared]) -> list[ColumnSpec]:
    return [ColumnSpec(name=name, dtype=one.dtype, shape=one.shape) for name, one in declared.items()]
