"""Python of a model's author, in processes of its own: for what no graph can express, and slow by its nature."""

from __future__ import annotations

import platform
import weakref
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import Field, field_validator

from hone.apart.pool import Pool
from hone.apart.process import Program, RowsError
from hone.apart.requirements import missing_here, problem_in, to_install
from hone.artifact import Artifact
from hone.errors import ArtifactError, InputError, ModelError, UnavailableError
from hone.runtimes.base import Availability, Runtime, RuntimeOptions, register
from hone.signature import TensorSpec
from hone.userload import REFERENCE

CODE = "code"
"""Folder of an artifact with the module and the files that belong to it."""


class Limits(RuntimeOptions):
    """How the processes of a model are run; the pass `python_process` has the same options."""

    instances: int = Field(1, ge=1, le=64, description="Processes a worker; each answers one batch at a time.")
    timeout_s: float = Field(30.0, gt=0, description="Longest that a call may take; then its process is ended.")
    start_s: float = Field(120.0, gt=0, description="Longest that a process may take to load.")
    memory_mb: int | None = Field(
        None, gt=0, description="Resident memory, MiB, at which a process is ended; null: no limit."
    )
    answer_mb: int = Field(256, gt=0, le=4096, description="Largest answer to a call, MB.")


class Options(Limits):
    """What is called, and what it needs.

    Attributes:
        form: what `call` is: the function itself, or one that returns it.
        call: `module:function` in the folder `code`.
        requirements: as pip writes them.
        versions: what of these the proof ran with.
    """

    form: Literal["predict", "load"]
    call: str = Field(pattern=REFERENCE)
    requirements: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)

    @field_validator("requirements")
    @classmethod
    def _are_requirements(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if problem := problem_in(text):
                raise ValueError(problem)
        return value


@register("python")
class PythonRuntime(Runtime):
    """A function of tensors, `dict[str, ndarray]` in and out, rows first; see docs/python.md.

    It runs in `instances` processes, which end with this one. One that ends, hangs or holds too much costs the batch it
    was at, and is started again.
    """

    module = "numpy"
    concurrent = True
    waits = True
    remark = "slow Python in a process of its own, not a graph"
    options = Options

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        options = _options(artifact)
        if lines := missing_here(options.requirements):
            raise UnavailableError(f"{options.call} needs {'; '.join(lines)}", to_install(options.requirements))
        program = Program(
            folder=(artifact.path / CODE).resolve(),
            form=options.form,
            reference=options.call,
            name=artifact.manifest.name,
            threads=threads,
            **options.model_dump(include={"timeout_s", "start_s", "memory_mb", "answer_mb"}),
        )
        self._call, self._signature = options.call, artifact.signature
        self._measured = bool(artifact.manifest.lineage)  # the outputs of a source are found by running it
        try:
            self._pool = Pool(program, options.instances)
        except ModelError as error:
            raise ArtifactError(str(error)) from None
        self._closing = weakref.finalize(self, self._pool.close)

    @classmethod
    def availability(cls) -> Availability:
        return Availability(True, version=platform.python_version(), detail="processes of their own, slow")

    @classmethod
    def check_host(cls, artifact: Artifact) -> str:
        options = _options(artifact)
        lines = missing_here(options.requirements)
        return f"{options.call} needs {'; '.join(lines)}; {to_install(options.requirements)}" if lines else ""

    @classmethod
    def code_in(cls, artifact: Artifact) -> str:
        return f"is Python code, {_options(artifact).call}, and runs it"

    @property
    def problem(self) -> str:
        return self._pool.problem

    def processes(self) -> tuple[int, ...]:
        return self._pool.processes()

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = self._signature.output_names
        try:
            answer = self._pool.call({name: inputs[name] for name in self._signature.input_names}, names)
        except RowsError as error:
            raise InputError(str(error)) from None
        batched = [spec.name for spec in self._signature.inputs if spec.batchable]
        if batched:
            self._check_rows(answer, len(inputs[batched[0]]))
        if not self._measured:
            return answer
        return {spec.name: self._fitting(spec, answer[spec.name]) for spec in self._signature.outputs}

    def _check_rows(self, answer: Mapping[str, np.ndarray], rows: int) -> None:
        for name, array in answer.items():
            if not array.ndim or len(array) != rows:
                had = f"{len(array)} row(s)" if array.ndim else "one value"
                raise ModelError(f"{self._call} returned '{name}' with {had} for {rows} row(s); give as many as came")

    def _fitting(self, spec: TensorSpec, array: np.ndarray) -> np.ndarray:
        """Return an output in its dtype of the signature; raise ModelError when it can't be, or has another shape."""
        if array.dtype != spec.numpy_dtype:
            if object in (array.dtype, spec.numpy_dtype) or not np.can_cast(array.dtype, spec.numpy_dtype, "safe"):
                had = "text" if array.dtype == object else array.dtype
                raise ModelError(f"{self._call} returned '{spec.name}' as {had}; the proof had {spec.dtype}")
            array = array.astype(spec.numpy_dtype)
        sizes = zip(spec.shape, array.shape, strict=False)
        if array.ndim != len(spec.shape) or any(isinstance(axis, int) and axis != size for axis, size in sizes):
            raise ModelError(
                f"{self._call} returned '{spec.name}' of shape {list(array.shape)}; the proof had {spec.describe()}"
            )
        return array

    def describe(self) -> str:
        count = len(self._pool.processes())
        return f"Python {platform.python_version()}, {count} process{'es' if count != 1 else ''} of its own, CPU"

    def close(self) -> None:
        self._closing()


def _options(artifact: Artifact) -> Options:
    return Options.model_validate(artifact.manifest.runtime_options)


def pins(artifact: Artifact) -> Sequence[str]:
    """Return what a host must have installed to run an artifact as in its proof, `name==version`; none for others."""
    if artifact.runtime != PythonRuntime.name:
        return ()
    return [f"{name}=={version.partition('+')[0]}" for name, version in _options(artifact).versions.items()]
