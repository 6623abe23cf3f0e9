"""Metrics: one file a metric, or a family. A module here registers its metrics; nothing else knows their names.

What a metric is, and how one is added, is in `registry.py`; `of_classes.py` and `of_values.py` hold what the members of
a family share.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from hone.recipe import QualitySpec

from .registry import Answers, Metric, registered

__all__ = ["Answers", "Metric", "all_metrics", "stand_in"]


@cache
def all_metrics() -> dict[str, Metric]:
    """Return every metric by name."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(registered().items()))


def stand_in(name: str) -> Metric:
    """Return the metric of a name; for a function of the user's the recipe's default metric, where answers are compared
    with the source's and there is nothing to call it with."""
    metrics = all_metrics()
    return metrics.get(name) or metrics[QualitySpec().metric]
