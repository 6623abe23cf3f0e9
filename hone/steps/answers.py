"""From a model's outputs to what callers want: probabilities, the best classes, names, unit vectors."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field, model_validator

from hone.steps.base import Columns, ColumnSpec, Run, Specs, Step, StepError, column, located, read_names

LABEL = "label"


class OfOne(Step):
    """A step that works on one output, in its place unless it is given another name."""

    input: str = Field("", description="Default: what the step before gives, or the model's first output.")
    output: str = Field("", description="Its name in the answer; default: the same.")

    @property
    def name(self) -> str:
        """Of what it gives."""
        return self.output or self.input

    def takes(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        spec = column(known, self.input)
        self.check(spec)
        return [spec]

    def check(self, spec: ColumnSpec) -> None:
        """Raise StepError when it can't work on this."""
        if spec.numpy_dtype.kind != "f" or len(spec.shape) < 2:
            raise StepError(f"'{spec.name}' is {spec.describe()}, expected floats [batch, n]")

    def gives(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        return [known[self.input].model_copy(update={"name": self.name})]

    def drops(self) -> tuple[str, ...]:
        return (self.input,) if self.name != self.input else ()

    def compute(self, values: np.ndarray) -> np.ndarray:
        """Return what it makes of floats, rows first."""
        raise NotImplementedError

    def bind(self, folder: Path, known: Specs) -> Run:
        dtype = known[self.name].numpy_dtype

        def run(columns: Columns) -> Columns:
            values = columns[self.input]
            return {self.name: self.compute(values.astype(np.result_type(values, np.float32))).astype(dtype)}

        return run


class Softmax(OfOne):
    """Scores to probabilities, along the last axis."""

    def compute(self, values: np.ndarray) -> np.ndarray:
        powers = np.exp(values - values.max(axis=-1, keepdims=True))
        shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
        return shares


class Sigmoid(OfOne):
    """Scores to probabilities, each by itself."""

    def check(self, spec: ColumnSpec) -> None:
        if spec.numpy_dtype.kind != "f":
            raise StepError(f"'{spec.name}' is {spec.describe()}, expected floats")

    def compute(self, values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-np.clip(values, -80, 80)))


class Normalize(OfOne):
    """Vectors to unit length (L2), along the last axis."""

    def compute(self, values: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), 1e-12)
        return vectors


class Threshold(Sigmoid):
    """Scores to 1 where they are over a limit, else 0."""

    at: float = Field(0.5, description="The limit.")

    def gives(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        return [known[self.input].model_copy(update={"name": self.name, "dtype": "int64"})]

    def compute(self, values: np.ndarray) -> np.ndarray:
        return values > self.at


class TopK(OfOne):
    """The best classes of each row and their scores, the best first."""

    output: str = Field("classes", description="The places of the best classes.")
    scores: str = Field("scores", description="Their scores.")
    k: int = Field(5, gt=0, description="How many.")

    @model_validator(mode="after")
    def _names_differ(self) -> TopK:
        if not self.output or not self.scores or self.output == self.scores:
            raise ValueError("output and scores must be two names")
        return self

    def gives(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        spec = known[self.input]
        if isinstance(spec.shape[-1], int) and spec.shape[-1] < self.k:
            raise StepError(f"'{spec.name}' has {spec.shape[-1]} classes, k is {self.k}")
        shape = (*spec.shape[:-1], self.k)
        return [
            ColumnSpec(name=self.output, dtype="int64", shape=shape),
            ColumnSpec(name=self.scores, dtype=spec.dtype, shape=shape),
        ]

    def bind(self, folder: Path, known: Specs) -> Run:
        def run(columns: Columns) -> Columns:
            values = columns[self.input]
            best = np.argsort(-values, axis=-1, kind="stable")[..., : self.k]
            return {self.output: best.astype(np.int64), self.scores: np.take_along_axis(values, best, axis=-1)}

        return run


class Labels(OfOne):
    """Places to names; scores to the name of the largest."""

    file_fields: ClassVar[tuple[str, ...]] = ("file",)

    output: str = Field(LABEL, description="The names.")
    names: tuple[str, ...] = Field((), description="The names, in the order of their places.")
    file: str = Field("", description="Or a file of them: a JSON list, or one a line.")

    @model_validator(mode="after")
    def _one_list(self) -> Labels:
        if bool(self.names) == bool(self.file):
            raise ValueError("give either 'names' or 'file'")
        return self

    def check(self, spec: ColumnSpec) -> None:
        if spec.numpy_dtype.kind not in "fiub" or (spec.numpy_dtype.kind == "f" and len(spec.shape) < 2):
            raise StepError(f"'{spec.name}' is {spec.describe()}, expected whole numbers, or scores [batch, n]")
        size = spec.shape[-1]
        if self.names and spec.numpy_dtype.kind == "f" and isinstance(size, int) and size != len(self.names):
            raise StepError(f"'{spec.name}' has {size} scores, there are {len(self.names)} names")

    def gives(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        spec = known[self.input]
        shape = spec.shape[:-1] if spec.numpy_dtype.kind == "f" else spec.shape
        return [ColumnSpec(name=self.name, dtype="string", shape=shape)]

    def bind(self, folder: Path, known: Specs) -> Run:
        names = np.array(self.names or read_names(located(folder, self.file)), dtype=object)

        def run(columns: Columns) -> Columns:
            values = columns[self.input]
            if values.dtype.kind == "f":
                if values.shape[-1] != len(names):
                    raise StepError(f"labels: '{self.input}' has {values.shape[-1]} scores, {len(names)} names")
                values = values.argmax(axis=-1)
            values = values.astype(np.int64)
            if values.size and not 0 <= values.min() <= values.max() < len(names):
                raise StepError(f"labels: '{self.input}' has a place outside the {len(names)} names")
            return {self.name: names[values]}

        return run
