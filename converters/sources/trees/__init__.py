"""Boosted trees of XGBoost and LightGBM, written as ONNX tree ensembles."""

from .lightgbm import LightgbmSource
from .xgboost import XgboostSource

__all__ = ["LightgbmSource", "XgboostSource"]
