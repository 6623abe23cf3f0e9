"""What files of torch hold, told from their header alone."""

from __future__ import annotations

import math
from pathlib import Path

from hone.errors import RecipeError


def describe_weights(file: Path) -> str:
    """Describe the tensors of a safetensors file in one line, from its header alone.

    Raises:
        RecipeError: the file is not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, "numpy") as weights:
            shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError):
        raise RecipeError(f"{file}: not a safetensors file") from None
    parameters = sum(math.prod(shape) for shape in shapes.values())
    first = ", ".join(f"{name} {shape}" for name, shape in list(shapes.items())[:2])
    return f"{len(shapes)} tensors, {parameters:,} parameters: {first}{', …' if len(shapes) > 2 else ''}"
