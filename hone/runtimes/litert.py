"""LiteRT (TensorFlow Lite) on CPUs, with the kernels of XNNPACK: what phones and small boards run."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, InputError, one_line
from hone.hardware import cores
from hone.runtimes.base import Availability, Runtime, missing, name_outputs, register
from hone.runtimes.parts import run_in_parts
from hone.runtimes.silence import silent

LARGE_BYTES = 32_000_000
KEPT = 4
"""Shapes that memory is kept for, of models that aren't large: to give an interpreter another shape takes longer than a
row of a small model."""
BAD_INDEX = re.compile(r"[\w ]*(index|indices) out of (bounds|range)")


@register("litert")
class LiteRtRuntime(Runtime):
    """A `.tflite` file, by the kernels that come with LiteRT: operators of one's own, and TensorFlow's, are not there.

    Inputs and outputs have the names of the model's signature; where those are numbered (`args_0`, `output_0`), as
    converters of other frameworks number them, they are taken in that order.
    """

    module = "ai_edge_litert.interpreter"

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        self._artifact, self._threads = artifact, threads or cores()
        self._signature = artifact.signature
        self._inputs, self._outputs, self._rows = _ends(self._interpreter(), artifact)
        self._check_kernels()
        small = artifact.entry.stat().st_size <= LARGE_BYTES
        self._kept = KEPT if small else 1
        self._shaped: OrderedDict[tuple[tuple[int, ...], ...], Any] = OrderedDict()

    def _interpreter(self) -> Any:
        return open_file(self._artifact.entry, self._threads)

    def _check_kernels(self) -> None:
        """What the file holds shows when memory is planned; LiteRT then says on standard error that it has begun."""
        try:
            with silent():
                self._interpreter().allocate_tensors()
        except RuntimeError as error:
            raise ArtifactError(f"{self._artifact.entry}: LiteRT can't run it: {one_line(error)}") from error

    @classmethod
    def availability(cls) -> Availability:
        if absent := missing("litert", ai_edge_litert="ai-edge-litert"):
            return absent
        return Availability(True, version=version("ai-edge-litert"), detail="computes on the CPU (XNNPACK)")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._rows is not None:
            return run_in_parts(self._run, inputs, self._rows)
        return self._run(inputs)

    def _run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        interpreter = self._of_shapes(inputs)
        for name, index in self._inputs.items():
            interpreter.set_tensor(index, inputs[name])
        try:
            interpreter.invoke()
        except RuntimeError as error:
            reason = BAD_INDEX.search(str(error))
            if reason is None:
                raise
            raise InputError(f"an input has a value out of range: {reason.group().strip()}") from None
        values = {name: interpreter.get_tensor(index) for name, index in self._outputs.items()}
        return name_outputs(values, self._signature)

    def _of_shapes(self, inputs: Mapping[str, np.ndarray]) -> Any:
        """Return an interpreter with memory for inputs of such shapes: the last few are kept."""
        shapes = tuple(inputs[name].shape for name in self._inputs)
        if shapes in self._shaped:
            self._shaped.move_to_end(shapes)
            return self._shaped[shapes]
        full = len(self._shaped) >= self._kept
        interpreter = self._shaped.popitem(last=False)[1] if full else self._interpreter()
        for index, shape in zip(self._inputs.values(), shapes, strict=True):
            interpreter.resize_tensor_input(index, shape)
        interpreter.allocate_tensors()
        self._shaped[shapes] = interpreter
        return interpreter

    def close(self) -> None:
        self._shaped.clear()

    def describe(self) -> str:
        return f"LiteRT {version('ai-edge-litert')}, CPU"


def open_file(file: Path, threads: int = 1) -> Any:
    """Return an interpreter of a `.tflite` file; raises ArtifactError when LiteRT can't load it."""
    from ai_edge_litert.interpreter import Interpreter

    try:
        return Interpreter(model_path=str(file), num_threads=threads)
    except Exception as error:
        raise ArtifactError(f"{file}: LiteRT can't load it: {one_line(error)}") from error


def file_inputs(interpreter: Any, artifact: Artifact) -> tuple[str, dict[str, str]]:
    """Return the name of a file's signature, and what the file calls the inputs of the artifact's.

    Raises:
        ArtifactError: it has none or several signatures, or other inputs than the artifact's.
    """
    signatures: dict[str, dict[str, list[str]]] = interpreter.get_signature_list()
    if len(signatures) != 1:
        raise ArtifactError(f"{artifact.entry}: has {len(signatures)} signatures, and must have one")
    name = next(iter(signatures))
    inputs, wanted = signatures[name]["inputs"], artifact.signature.input_names
    own = list(wanted) if set(wanted) == set(inputs) else sorted(inputs, key=_number)
    numbered = own == list(wanted) or all(_number(name)[0] >= 0 for name in own)
    if len(own) != len(wanted) or not numbered:
        raise ArtifactError(f"{artifact.entry}: has the inputs {sorted(inputs)}, the signature names {wanted}")
    return name, dict(zip(wanted, own, strict=True))


def _ends(interpreter: Any, artifact: Artifact) -> tuple[dict[str, int], dict[str, int], int | None]:
    """Return the tensors of inputs and outputs by name, and the rows that the model is made for; None: any number."""
    name, own = file_inputs(interpreter, artifact)
    runner = interpreter.get_signature_runner(name)
    inputs, outputs = runner.get_input_details(), runner.get_output_details()
    batched = {spec.name for spec in artifact.signature.inputs if spec.batchable}
    sizes = {int(inputs[other]["shape_signature"][0]) for name, other in own.items() if name in batched}
    rows = sizes.pop() if len(sizes) == 1 else -1
    given = {name: int(inputs[other]["index"]) for name, other in own.items()}
    named = {name: int(outputs[name]["index"]) for name in sorted(outputs, key=_number)}
    return given, named, rows if rows > 0 else None


def _number(name: str) -> tuple[int, str]:
    """Order numbered names by their numbers; those without one come first, by name."""
    found = re.search(r"_(\d+)$", name)
    return (int(found.group(1)), "") if found else (-1, name)
