"""The operators that the MLX runtime has, all of them: importing this file imports each file that registers some."""

from hone.runtimes.mlx import layers, recurrent, shapes
from hone.runtimes.mlx.ops import OPERATORS

__all__ = ["OPERATORS", "layers", "recurrent", "shapes"]
