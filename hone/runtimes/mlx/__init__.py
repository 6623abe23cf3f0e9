"""The MLX runtime: a graph of ONNX operators, each written with MLX arrays."""

from hone.runtimes.mlx.runtime import MlxRuntime

__all__ = ["MlxRuntime"]
