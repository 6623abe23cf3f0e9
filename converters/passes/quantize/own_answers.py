"""What a change of a model costs on the calibration rows, against the model's own answers from before it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hone.recipe import LoadedRecipe
from hone.signature import Tensors

from ...proof.metrics import stand_in
from ...proof.metrics.registry import Loss


@dataclass(frozen=True)
class OwnAnswers:
    """The float model's answers, and the recipe's metric as a distance from them: the evaluation rows stay unseen.

    Attributes:
        output: that the recipe's quality is of.
        answers: to the calibration rows.
        loss: of the recipe's metric.
        limit: how much may be lost, in the metric's unit.
    """

    output: str
    answers: np.ndarray
    loss: Loss
    limit: float

    @classmethod
    def of(cls, loaded: LoadedRecipe, answers: Tensors, most: float | None) -> OwnAnswers:
        """Take the float model's answers.

        Args:
            answers: all outputs, rows on axis 0.
            most: that may be lost; None takes the budget's `quality_drop`.
        """
        quality = loaded.recipe.quality
        output = quality.output or next(iter(answers))
        loss = stand_in(quality.metric).loss
        limit = most if most is not None else loaded.recipe.budget.allowed_drop(loss.scale(answers[output]))
        return cls(output, answers[output], loss, limit)

    def lost(self, answers: Tensors) -> float:
        """Return what a changed model's answers to the same rows have lost."""
        return self.loss.of(answers[self.output], self.answers)
