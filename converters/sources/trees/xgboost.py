"""XGBoost: boosters and scikit-learn style models, as .ubj or .json files or by loader; exported tree by tree."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from hone.artifact import Artifact
from hone.errors import RecipeError, one_line
from hone.recipe import LoadedRecipe
from hone.signature import Signature

from ...context import Built, PassContext
from ..base import Source, feature_matrix, features_signature, outputs_by_kind, read_model, register

MODEL = "model.ubj"


@register("xgboost")
class XgboostSource(Source):
    suffixes = (".ubj", ".json")
    tools = ("xgboost", "xgboost-cpu", "onnx")
    multiplies = False

    def owns(self, model: Any) -> bool:
        xgboost = sys.modules.get("xgboost")
        return xgboost is not None and isinstance(model, xgboost.Booster | xgboost.XGBModel)

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        """Save the model as `model.ubj`, with what its settings imply made explicit.

        A model trained with early stopping predicts with its best iterations only, so only these are kept;
        `multi:softmax`, which gives the class alone, becomes `multi:softprob`.
        """
        _require()
        where = f"{loaded.path}: source"
        booster = _kept_rounds(_load(loaded), where)
        config = json.loads(booster.save_config())["learner"]
        if config["gradient_booster"]["name"] == "gblinear":
            raise RecipeError(f"{where}: the booster is 'gblinear', not trees; use LinearRegression of scikit-learn")
        if config["objective"]["name"] == "multi:softmax":
            booster.set_param({"objective": "multi:softprob"})
        signature = _signature(loaded, booster)
        booster.save_model(out / MODEL)
        return Built(MODEL, "fp32", signature)

    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Write the trees as one TreeEnsembleRegressor and the objective's link function as standard operators."""
        import onnx

        from hone.runtimes.xgboost import objective_of, read_booster

        from ...graph.graph_signature import fit_outputs
        from .boosted_trees import tree_graph

        booster = read_booster(model.entry)
        graph = tree_graph(booster, objective_of(booster), model.signature, opset)
        fit_outputs(graph, [value.name for value in graph.graph.output], model.signature)
        onnx.checker.check_model(graph)
        onnx.save(graph, out / "model.onnx")
        details = {"opset": opset, "rounds": booster.num_boosted_rounds(), "features": booster.num_features()}
        return Built("model.onnx", runtime_options={}, details=details)

    def inspect(self, file: Path) -> Signature | None:
        from hone.runtimes.xgboost import read_booster

        _require()
        return feature_matrix(read_booster(file).num_features())

    def outputs_of(self, file: Path) -> list[str]:
        from hone.runtimes.xgboost import BINARY, MULTICLASS, objective_of, read_booster

        try:
            return outputs_by_kind(objective_of(read_booster(file)) in (BINARY, MULTICLASS, "multi:softmax"))
        except ImportError:
            return outputs_by_kind(True)


def _require() -> None:
    from hone.runtimes import runtime_class

    runtime_class("xgboost").require()


def _load(loaded: LoadedRecipe) -> Any:
    """Return the Booster or XGBModel that the recipe names."""
    from hone.runtimes.xgboost import read_booster

    return read_model(loaded, "an XGBoost", read_booster, _checked)


def _checked(model: Any, where: str) -> Any:
    import xgboost

    if not isinstance(model, xgboost.Booster | xgboost.XGBModel):
        raise RecipeError(f"{where} {type(model).__name__}, which is no XGBoost model; see source.framework")
    missing = getattr(model, "missing", math.nan)
    if missing is not None and not math.isnan(missing):
        raise RecipeError(f"{where} a model with missing={missing}; Hone takes NaN for missing, train with missing=nan")
    return model


def _kept_rounds(model: Any, where: str) -> Any:
    """Return the booster, cut to the iterations that the model predicts with."""
    import xgboost

    is_estimator = isinstance(model, xgboost.XGBModel)
    try:
        booster = (model.get_booster() if is_estimator else model).copy()
    except Exception as error:
        raise RecipeError(f"{where}: the model is not trained: {one_line(error)}") from error
    best = booster.attr("best_iteration")
    if best is not None and (is_estimator or booster.attr("scikit_learn") is not None):
        booster = booster[: int(best) + 1]
    if not booster.num_boosted_rounds():
        raise RecipeError(f"{where}: the model holds no trees; train it first")
    return booster


def _signature(loaded: LoadedRecipe, booster: Any) -> Signature:
    """Return the recipe's inputs, checked against the booster's features, or one matrix of all features."""
    signature = features_signature(loaded, booster.num_features(), "XGBoost")
    names, own = signature.input_names, list(booster.feature_names or ())
    if len(names) > 1 and set(names) == set(own) and names != own:
        where = f"{loaded.path}: signature.inputs"
        raise RecipeError(f"{where}: are not in the model's order, which is {', '.join(own)}")
    return signature
