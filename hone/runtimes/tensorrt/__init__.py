"""The TensorRT runtime, and the engine that is built on the host it runs on."""

from hone.runtimes.tensorrt.runtime import TensorrtRuntime

__all__ = ["TensorrtRuntime"]
