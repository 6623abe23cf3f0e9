"""All steps of a model: what of them fits together, what callers give and get with them, and how they run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from hone.signature import Signature, Tensors, TensorSpec
from hone.steps.answers import OfOne
from hone.steps.base import COUNTS, MOST_BYTES, Columns, ColumnSpec, Run, Specs, Step, StepError
from hone.steps.offered import Offered
from hone.steps.record import Steps


@dataclass(frozen=True)
class Stage:
    """A step that was found to fit.

    Attributes:
        where: it stands, `preprocess[0].tokenize` for one.
        step: with its input named.
        takes: the names of what it takes.
        gives: what it gives.
        known: what it takes and gives.
    """

    where: str
    step: Step
    takes: tuple[str, ...]
    gives: tuple[ColumnSpec, ...]
    known: Specs


@dataclass(frozen=True)
class Flow:
    """The steps of a model as they were found to fit together."""

    before: tuple[Stage, ...]
    after: tuple[Stage, ...]
    inputs: tuple[ColumnSpec, ...]
    outputs: tuple[TensorSpec, ...]


def check_steps(steps: Steps, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec] | None) -> Flow:
    """Return how steps fit together with a model.

    Args:
        steps: of a recipe or a manifest.
        inputs: of the model.
        outputs: of the model; None: not known yet, so that steps behind it aren't looked at.

    Raises:
        StepError: naming the step that doesn't fit, and why.
    """
    wanted = {spec.name: _column(spec) for spec in inputs}
    raw: dict[str, ColumnSpec] = {}
    known: dict[str, ColumnSpec] = {}
    before: list[Stage] = []
    for index, one in enumerate(steps.preprocess):
        stage = _stage(f"preprocess[{index}].{one.kind}", one.step, known, wanted, raw)
        _forget(known, stage)
        before.append(stage)
    for name, spec in wanted.items():
        if name not in known:
            raw[name] = known[name] = spec
        elif problem := mismatch(known[name], spec):
            giver = next(stage for stage in reversed(before) if name in {one.name for one in stage.gives})
            raise StepError(f"{giver.where}: gives '{name}' as {problem}, the model takes {spec.describe()}")
    for index, stage in enumerate(before):
        used = {*wanted, *(name for later in before[index + 1 :] for name in later.takes)}
        if not used & {spec.name for spec in stage.gives}:
            given = ", ".join(spec.name for spec in stage.gives)
            raise StepError(f"{stage.where}: nothing takes what it gives: {given}")
    after, answers = _behind(steps, outputs)
    return Flow(tuple(before), after, tuple(raw.values()), answers)


def _behind(steps: Steps, outputs: Sequence[TensorSpec] | None) -> tuple[tuple[Stage, ...], tuple[TensorSpec, ...]]:
    """Return the steps behind a model, and what callers get."""
    if outputs is None:
        return (), ()
    known = {spec.name: _column(spec) for spec in outputs}
    if not known:
        return (), ()
    previous, after = next(iter(known)), []
    for index, one in enumerate(steps.postprocess):
        step = one.step
        if isinstance(step, OfOne) and not step.input:
            step = step.model_copy(update={"input": previous})
        stage = _stage(f"postprocess[{index}].{one.kind}", step, known, {}, None)
        _forget(known, stage)
        previous = stage.gives[0].name
        after.append(stage)
    return tuple(after), tuple(TensorSpec(**_plain(spec)) for spec in known.values())


def _stage(
    where: str, step: Step, known: dict[str, ColumnSpec], wanted: Specs, raw: dict[str, ColumnSpec] | None
) -> Stage:
    """Check a step, and add what callers must give for it to `raw`; None: nobody gives more than what is known."""
    try:
        takes = step.takes(known, wanted)
        for spec in takes:
            there = known.get(spec.name)
            if there is None and raw is None:
                raise StepError(f"there is no output '{spec.name}'")
            if there is None:
                assert raw is not None
                if spec.name in raw:
                    raise StepError(f"takes '{spec.name}', which a step before has used up")
                raw[spec.name] = known[spec.name] = spec
            elif problem := mismatch(there, spec):
                raise StepError(f"'{spec.name}' is {problem}, it takes {spec.describe()}")
        gives = tuple(step.gives(known, wanted))
    except StepError as error:
        raise StepError(f"{where}: {error}") from None
    return Stage(
        where, step, tuple(spec.name for spec in takes), gives, {**known, **{spec.name: spec for spec in gives}}
    )


def _forget(known: dict[str, ColumnSpec], stage: Stage) -> None:
    """Bring what is known up to date behind a step."""
    for name in stage.step.drops():
        known.pop(name, None)
    known.update({spec.name: spec for spec in stage.gives})


def mismatch(have: TensorSpec, want: TensorSpec) -> str:
    """Return what there is, where it can't be taken as what is wanted; else an empty string."""
    same = have.dtype == want.dtype and len(have.shape) == len(want.shape)
    fits = same and all(isinstance(w, str) or h == w for h, w in zip(have.shape, want.shape, strict=True))
    return "" if fits else have.describe()


def _plain(spec: TensorSpec) -> dict[str, object]:
    return {field: getattr(spec, field) for field in TensorSpec.model_fields}


def _column(spec: TensorSpec) -> ColumnSpec:
    return ColumnSpec(**_plain(spec))


def offered(steps: Steps | None, signature: Signature) -> Signature:
    """Return what callers give and get: the model's own signature where it has no steps.

    Raises:
        StepError: the steps don't fit the model.
    """
    if not steps:
        return signature
    flow = check_steps(steps, [source_layout(spec) for spec in signature.inputs], signature.outputs)
    return Offered(inputs=flow.inputs, outputs=flow.outputs, model=signature)


def source_layout(spec: TensorSpec) -> TensorSpec:
    """Return an input with its axes in the source model's order, which steps give."""
    if not spec.source_axes:
        return spec
    shape = tuple(spec.shape[spec.source_axes.index(axis)] for axis in range(len(spec.shape)))
    return spec.model_copy(update={"shape": shape, "source_axes": ()})


class ReadySteps:
    """Steps made ready to run; its methods may be called from several threads.

    Args:
        steps: of a recipe or a manifest.
        signature: of the model; without outputs the steps behind it can't run.
        folder: that the steps' files are named from.

    Attributes:
        inputs: what callers give, by name.
        outputs: what they get.
        runs_code: some are functions of the user's own.
        row_bytes: of the tensors that are made of a row before the model; those that grow with its length not counted.

    Raises:
        StepError: a step doesn't fit, or its file can't be used.
        UnavailableError: this host lacks a library.
    """

    def __init__(self, steps: Steps, signature: Signature, folder: Path) -> None:
        flow = check_steps(steps, [source_layout(spec) for spec in signature.inputs], signature.outputs)
        self.inputs = {spec.name: spec for spec in flow.inputs}
        self.outputs = {spec.name: spec for spec in flow.outputs}
        self.runs_code = bool(steps.functions)
        self._model = signature.inputs
        self._before = [(stage, _bound(stage, folder)) for stage in flow.before]
        self._after = [(stage, _bound(stage, folder)) for stage in flow.after]
        self.row_bytes = sum(_fixed_bytes(spec) for stage in flow.before for spec in stage.gives)

    def before(self, raw: Mapping[str, np.ndarray], most_bytes: int | None = None) -> tuple[Tensors, np.ndarray | None]:
        """Return the source model's tensors of what callers give, and the tokens of each row where there are some.

        Args:
            raw: rows.
            most_bytes: of tensors that may be made of them, beside `row_bytes`; None: as many as it takes.

        Raises:
            InputError: naming the input and the row that can't be used.
            TooMuchError: more would be made of them; nothing has been.
        """
        columns = dict(raw)
        if most_bytes is not None:
            columns[MOST_BYTES] = np.array(most_bytes)
        columns = _run(self._before, columns)
        return {spec.name: columns[spec.name] for spec in self._model}, columns.get(COUNTS)

    def tensors(
        self, raw: Mapping[str, np.ndarray], most_bytes: int | None = None
    ) -> tuple[Tensors, np.ndarray | None]:
        """Return what `before` does, in the order of axes that this model takes."""
        found, counts = self.before(raw, most_bytes)
        return {spec.name: spec.fit(found[spec.name]) for spec in self._model}, counts

    def after(self, outputs: Mapping[str, np.ndarray]) -> Tensors:
        """Return the answer that is made of a model's outputs."""
        if not self._after:
            return dict(outputs)
        columns = _run(self._after, dict(outputs))
        return {name: columns[name] for name in self.outputs}

    def is_raw(self, names: Mapping[str, object]) -> bool:
        """Return whether inputs of these names are what callers give, rather than the model's tensors."""
        return names.keys() == self.inputs.keys()


def _fixed_bytes(spec: TensorSpec) -> int:
    """Return the bytes of a row of a column; 0 where the row's length, or what it holds, says."""
    inner, dtype = [size for size in spec.shape[1:] if isinstance(size, int)], spec.numpy_dtype
    return prod(inner) * dtype.itemsize if len(inner) == len(spec.shape) - 1 and dtype.kind != "O" else 0


def _bound(stage: Stage, folder: Path) -> Run:
    try:
        return stage.step.bind(folder, stage.known)
    except StepError as error:
        raise StepError(f"{stage.where}: {error}") from None


def _run(stages: list[tuple[Stage, Run]], columns: Columns) -> Columns:
    for stage, run in stages:
        given = run(columns)
        for spec in stage.gives:
            array = given[spec.name]
            if array.dtype.kind != "O" or spec.numpy_dtype.kind != "O":
                array = array.astype(spec.numpy_dtype, copy=False)
            columns[spec.name] = array
        if COUNTS in given:
            columns[COUNTS] = given[COUNTS]
    return columns
