"""The ONNX Runtime runtime, and how its execution providers are chosen."""

from hone.runtimes.onnx.runtime import OnnxRuntime

__all__ = ["OnnxRuntime"]
