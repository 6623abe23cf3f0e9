"""The data module of a first recipe: functions that say which rows to return, and raise until they do."""

from __future__ import annotations

import re
from itertools import chain, count
from pathlib import Path

from hone.signature import Signature

from ..sources import Source


def data_file(recipe: Path, name: str, stub: str, signature: Signature) -> Path:
    """Return the data module for a recipe: one that was written for it and its inputs before, or a new one.

    A module that is there for anything else is another model's: its rows are not this one's.
    """
    own = "data_" + re.sub(r"\W", "_", name)
    files = (recipe.parent / f"{stem}.py" for stem in chain(["data", own], (f"{own}_{number}" for number in count(2))))
    return next(file for file in files if not file.exists() or _fits(file, stub, signature))


def _fits(file: Path, stub: str, signature: Signature) -> bool:
    text = file.read_text(errors="replace")
    return text.startswith(stub.split("\n", 1)[0]) and all(f'"{spec.name}"' in text for spec in signature.inputs)


def data_module(recipe: str, source: Source, signature: Signature, evaluation: bool = True) -> str:
    """Return the stub: functions that say what to return, and raise until they do.

    Args:
        recipe: name of its file.
        source: the model's framework.
        signature: the model's inputs.
        evaluation: a function gives the evaluation rows; False: a file does. Where that leaves none, it is empty.
    """
    inputs = "\n".join(f'        "{spec.name}": {spec.describe()}' for spec in signature.inputs)
    functions = []
    if evaluation:
        functions.append(
            f'''def evaluation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return (inputs, labels): rows that the model was not trained on; the recipe says how many prove its budget.

    inputs, by name, one row on axis 0 for each label:
{inputs}
    labels: the right answer for each row; return the inputs alone if the metric compares with the source's outputs.
    """
    raise NotImplementedError("TODO: return the evaluation rows, see the docstring")'''
        )
    if source.multiplies:
        functions.append(
            f'''def calibration() -> dict[str, np.ndarray]:
    """Return inputs alone: 100 to 500 typical rows, none of them in evaluation.

    by name:
{inputs}
    """
    raise NotImplementedError("TODO: return the calibration rows, see the docstring")'''
        )
    if not functions:
        return ""
    title = f'"""Data for {recipe}: fill in what is marked TODO."""'
    head = "\n\n".join([title, "from __future__ import annotations", "import numpy as np\n"])
    return "\n\n".join([head, *(f"{function}\n" for function in functions)])
