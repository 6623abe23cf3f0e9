"""Python code that is the model: `packing.py` gathers its files, `source.py` makes an artifact of them and tries it."""

from .source import PythonSource

__all__ = ["PythonSource"]
