"""The torch runtime, the baseline that others are proven against, and how a module is called."""

from hone.runtimes.torch.runtime import TorchRuntime

__all__ = ["TorchRuntime"]
