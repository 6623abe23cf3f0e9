"""Keras models: loading, the graph that becomes ONNX, and fine-tuning for passes that train."""

from .source import KerasSource

__all__ = ["KerasSource"]
