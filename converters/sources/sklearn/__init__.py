"""scikit-learn estimators: loading, columns of tables, and functions inside pipelines."""

from .source import SklearnSource

__all__ = ["SklearnSource"]
