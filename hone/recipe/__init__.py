"""Recipes: the user's YAML, typed and checked. Every mistake names file, line, field and the nearest valid name.

Here is what a recipe may say; what its passes and metrics are lives in `converters`.
"""

from hone.recipe.fields import (
    PICKLE_SUFFIXES,
    Budget,
    Conditions,
    DataSpec,
    InputSpec,
    MeasureSpec,
    MetricSpec,
    PromotionSpec,
    QualitySpec,
    Recipe,
    SignatureSpec,
    SourceSpec,
    VariantSpec,
    allowed_drop,
)
from hone.recipe.load import LoadedRecipe, load_recipe

__all__ = [
    "PICKLE_SUFFIXES",
    "Budget",
    "Conditions",
    "DataSpec",
    "InputSpec",
    "LoadedRecipe",
    "MeasureSpec",
    "MetricSpec",
    "PromotionSpec",
    "QualitySpec",
    "Recipe",
    "SignatureSpec",
    "SourceSpec",
    "VariantSpec",
    "allowed_drop",
    "load_recipe",
]
