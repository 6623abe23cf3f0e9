"""What a pass or a source is given beside a model, and what it gives back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from hone.artifact import EXAMPLE, MANIFEST, Artifact
from hone.data import Dataset, load_dataset, read_dataset
from hone.errors import PassError, RecipeError
from hone.golden.made_up import synthetic
from hone.recipe import LoadedRecipe
from hone.signature import Signature, Tensors
from hone.userload import call, load_function

FEWEST_ROWS = 8
"""Of a calibration set that ranges are taken from."""


@dataclass(frozen=True)
class Built:
    """What a pass wrote into its output directory.

    Attributes:
        entry: the file that the runtime opens, relative to the output directory.
        precision: fp32, fp16, int8, …; None keeps the input's.
        signature: only when the pass changes it.
        runtime_options: how the runtime should load it; None keeps the input's.
        requires: hardware it needs; None keeps the input's.
        details: facts for the report, such as how many nodes were quantized.
    """

    entry: str
    precision: str | None = None
    signature: Signature | None = None
    runtime_options: dict[str, Any] | None = None
    requires: dict[str, str] | None = None
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """A run's data as files of `hone.data.save_dataset`, in the form that the source model takes.

    The user's data functions are called once a run; they may read a database, or draw at random.
    """

    evaluation: Path
    calibration: Path | None


class PassContext:
    """What a pass may use beside its input: the recipe's data and hooks, a scratch folder, a progress line."""

    def __init__(
        self,
        loaded: LoadedRecipe,
        signature: Signature,
        progress: Callable[[str], None],
        rows: Rows | None = None,
    ) -> None:
        self.loaded = loaded
        self.signature = signature
        self.progress = progress
        self._rows = rows

    @cached_property
    def calibration(self) -> Dataset:
        """The calibration rows, checked against the signature.

        Raises:
            RecipeError: the recipe has no `calibration`.
        """
        spec = self.loaded.recipe.calibration
        if spec is None:
            raise RecipeError(f"{self.loaded.path}: calibration: is required by this pass; name a data set")
        if self._rows and self._rows.calibration:
            return self._fitted(self._rows.calibration)
        return load_dataset(self.loaded, "calibration", spec, self.signature)

    def with_calibration(self, rows: Dataset) -> PassContext:
        """Return a context whose calibration rows are others, as of a part of the model."""
        context = PassContext(self.loaded, self.signature, self.progress, self._rows)
        context.calibration = rows
        return context

    def _fitted(self, file: Path) -> Dataset:
        """Rows of a file in the order of axes and the dtypes of this context's signature."""
        data = read_dataset(file)
        return Dataset({spec.name: spec.fit(data.inputs[spec.name]) for spec in self.signature.inputs}, data.labels)

    def ranges(self, name: str) -> Dataset:
        """The calibration rows, for a pass that takes value ranges from them.

        Raises:
            PassError: they are too few to show a range.
        """
        if self.calibration.rows < FEWEST_ROWS:
            raise PassError(
                f"{name}: {self.calibration.rows} calibration row(s) can't show the range of a value; "
                f"give at least {FEWEST_ROWS}, better a few hundred, in {self.loaded.path}: calibration"
            )
        return self.calibration

    @cached_property
    def sample(self) -> Dataset:
        """A few real rows to trace or check a model with: the first of the calibration or evaluation set."""
        recipe = self.loaded.recipe
        if recipe.calibration:
            return self.calibration.head(4)
        return self._evaluation.head(4)

    @property
    def _evaluation(self) -> Dataset:
        """The evaluation rows, which no pass may see but for a few."""
        if self._rows:
            return self._fitted(self._rows.evaluation)
        return load_dataset(self.loaded, "evaluation", self.loaded.recipe.evaluation, self.signature)

    def example(self, rows: int) -> Tensors | None:
        """Return rows to go with a model: real ones, made-up ones where the recipe lets none be copied, or None where
        these can't be made, as of text."""
        if self.loaded.recipe.rows_may_be_copied:
            return self.sample.head(rows).inputs
        return synthetic(self._evaluation.inputs, rows)

    @cached_property
    def train(self) -> Callable[..., Any] | None:
        """The recipe's fine-tune hook, or None."""
        reference = self.loaded.recipe.train
        if reference is None:
            return None
        return load_function(reference, self.loaded.root, f"{self.loaded.path}: train")

    def fine_tune(self, model: Any, epochs: int, required_by: str = "") -> Any:
        """Return the model after the recipe's fine-tune hook, or as it is when there is no hook.

        Args:
            model: what the hook gets; a hook that returns None has trained it in place.
            epochs: for the hook.
            required_by: the pass that can't do without a hook.

        Raises:
            RecipeError: the hook is missing though required, or fails.
        """
        field = f"{self.loaded.path}: train"
        if self.train is None:
            if required_by:
                raise RecipeError(f"{field}: is required by pass '{required_by}'; name a function (model, epochs)")
            return model
        trained = call(self.train, self.loaded.recipe.train or "", field, model, epochs)
        return model if trained is None else trained


def copy_files(model: Artifact, out: Path) -> None:
    """Copy an artifact's files, for a pass that changes only how they are run."""
    for file in model.path.iterdir():
        if file.name not in (MANIFEST, EXAMPLE):
            shutil.copyfile(file, out / file.name)
