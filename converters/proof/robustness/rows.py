"""Disturbed rows of a data set: the same ones in every process, however many of them it gets through."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hone.errors import RecipeError
from hone.recipe import RobustnessSpec
from hone.signature import Tensors, TensorSpec

from .kinds import KINDS
from .traits import Traits, masks_of

SEED = 0
BATCH = 32
"""Rows that are disturbed, and answered, at a time."""


@dataclass(frozen=True)
class Case:
    """A kind of disturbance at one severity."""

    kind: str
    severity: int

    def __str__(self) -> str:
        return f"{self.kind} (severity {self.severity})"


class Disturbed:
    """Rows of a data set in an order that says nothing, disturbed.

    Args:
        specs: of the source model's inputs.
        inputs: evaluation rows by name, on axis 0.
    """

    def __init__(self, specs: Sequence[TensorSpec], inputs: Tensors) -> None:
        self._inputs, self._count = inputs, len(next(iter(inputs.values())))
        self._traits = {spec.name: Traits(spec, inputs[spec.name], masks_of(inputs, spec.name)) for spec in specs}

    @property
    def kinds(self) -> list[str]:
        """The kinds that fit one of the inputs."""
        return [name for name, kind in KINDS.items() if any(kind.fits(traits) for traits in self._traits.values())]

    def batches(self, case: Case, rows: int | None) -> Iterator[Tensors]:
        """Give the disturbed rows, BATCH at a time."""
        kind, place = KINDS[case.kind], list(KINDS).index(case.kind)
        strength, numbers = kind.strengths[case.severity - 1], order(self._count, rows)
        for start in range(0, len(numbers), BATCH):
            generator = np.random.default_rng([SEED, place, case.severity, start])
            found = {name: array[numbers[start : start + BATCH]] for name, array in self._inputs.items()}
            for name, traits in self._traits.items():
                if kind.fits(traits):
                    found[name] = _as(kind.apply(found[name], traits, strength, generator), found[name].dtype)
            yield found


def _as(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return np.rint(values).astype(dtype) if dtype.kind in "iu" else values.astype(dtype, copy=False)


def order(count: int, most: int | None) -> np.ndarray:
    """Return the numbers of the rows that are disturbed, at most so many, in an order that says nothing: whatever part
    of them is answered, from the first on, is a random one."""
    return np.random.default_rng(SEED).permutation(count)[:most]


def cases_of(spec: RobustnessSpec, disturbed: Disturbed, where: str) -> list[Case]:
    """Return what is tried.

    Args:
        spec: of the recipe.
        disturbed: the rows.
        where: the recipe's file, for messages.

    Raises:
        RecipeError: a kind that is asked for fits none of the inputs, or none fits.
    """
    fitting = disturbed.kinds
    strange = [name for name in spec.perturbations if name not in fitting]
    if strange or not fitting:
        fits = f"these do: {', '.join(fitting)}" if fitting else "none does, so leave budget.robustness_drop out"
        what = f"{strange[0]} fits" if strange else "numbers, ids, texts and images can be disturbed:"
        raise RecipeError(f"{where}: robustness.perturbations: {what} none of the model's inputs; {fits}")
    kinds = list(dict.fromkeys(spec.perturbations)) or fitting
    return [Case(kind, severity) for kind in kinds for severity in sorted(set(spec.severities))]
