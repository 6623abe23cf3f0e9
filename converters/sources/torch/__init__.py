"""Torch modules: loading, and the export to ONNX."""

from .source import TorchSource

__all__ = ["TorchSource"]
