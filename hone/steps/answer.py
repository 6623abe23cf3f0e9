"""What callers of a model with steps get, and what it was made of."""

from __future__ import annotations

import numpy as np

from hone.signature import Tensors


class Answer(dict[str, np.ndarray]):
    """What steps made of a model's outputs.

    Attributes:
        inputs: of the model, made by steps.
        outputs: of the model.
        tokens: of all rows of text; 0 where there is none.
    """

    __slots__ = ("inputs", "outputs", "tokens")

    def __init__(self, answers: Tensors, inputs: Tensors, outputs: Tensors, tokens: int) -> None:
        super().__init__(answers)
        self.inputs = inputs
        self.outputs = outputs
        self.tokens = tokens


def computed(inputs: Tensors, outputs: Tensors) -> tuple[Tensors, Tensors]:
    """Return what the model was given and what it gave, of a request and its answer."""
    return (outputs.inputs, outputs.outputs) if isinstance(outputs, Answer) else (inputs, outputs)
