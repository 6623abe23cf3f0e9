"""Recipes: the user's YAML, typed and checked. Every mistake names file, line, field and the nearest valid name.

Here is what a recipe may say; what its passes and metrics are lives in `converters`.
"""

from hone.recipe.fields import (
    Budget,
    Conditions,
    DataSpec,
    MeasureSpec,
    MetricSpec,
    PromotionSpec,
    QualitySpec,
    Recipe,
    allowed_drop,
)
from hone.recipe.load import LoadedRecipe, load_recipe
from hone.recipe.model import PICKLE_SUFFIXES, InputSpec, SignatureSpec, SourceSpec
from hone.recipe.retrain import NewRowsSpec, ParameterSpec, RetrainSpec, TrainingSearchSpec
from hone.recipe.robustness import RobustnessSpec
from hone.recipe.variants import VariantSpec

__all__ = [
    "PICKLE_SUFFIXES",
    "Budget",
    "Conditions",
    "DataSpec",
    "InputSpec",
    "LoadedRecipe",
    "MeasureSpec",
    "MetricSpec",
    "NewRowsSpec",
    "ParameterSpec",
    "PromotionSpec",
    "QualitySpec",
    "Recipe",
    "RetrainSpec",
    "RobustnessSpec",
    "SignatureSpec",
    "SourceSpec",
    "TrainingSearchSpec",
    "VariantSpec",
    "allowed_drop",
    "load_recipe",
]
