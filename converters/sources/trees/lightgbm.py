"""LightGBM: boosters and scikit-learn style models, as text files or by loader; exported tree by tree."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import PassError, RecipeError, one_line
from hone.recipe import LoadedRecipe
from hone.signature import Signature

from ...context import Built, PassContext
from ..base import Source, feature_matrix, features_signature, outputs_by_kind, read_model, register
from .boosted_trees import Ensemble, checked_set, ensemble_graph, rounded_down

MODEL = "model.txt"
ACTIVATIONS = {
    "Identity": (
        "regression", "regression_l1", "huber", "fair", "quantile", "mape", "lambdarank", "rank_xendcg", "custom",
    ),
    "Sigmoid": ("binary", "cross_entropy"),
    "Softmax": ("multiclass",),
    "Exp": ("poisson", "gamma", "tweedie"),
}  # fmt: skip


@register("lightgbm")
class LightgbmSource(Source):
    suffixes = (".txt",)
    tools = ("lightgbm", "onnx")
    multiplies = False

    def owns(self, model: Any) -> bool:
        lightgbm = sys.modules.get("lightgbm")
        return lightgbm is not None and isinstance(model, lightgbm.Booster | lightgbm.LGBMModel)

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        """Save the model as `model.txt`; with early stopping, its best iterations only, as it predicts with."""
        _require()
        booster = _load(loaded)
        booster.save_model(out / MODEL)
        return Built(MODEL, "fp32", features_signature(loaded, booster.num_feature(), "LightGBM"))

    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Write the trees as one TreeEnsembleRegressor and the objective's link function as standard operators.

        LightGBM compares float64 thresholds; a float32 value is on the same side of a threshold rounded down to
        float32, so nothing is lost.
        """
        import onnx

        from hone.runtimes.lightgbm import CLASSIFIERS, read_booster

        from ...graph.graph_signature import fit_outputs

        dumped = read_booster(model.entry).dump_model()
        objective, *parameters = str(dumped.get("objective", "custom")).split(" ")
        activation = next((name for name, known in ACTIVATIONS.items() if objective in known), None)
        if activation is None or "sqrt" in parameters:
            known = ", ".join(sorted(name for names in ACTIVATIONS.values() for name in names))
            whole = " ".join([objective, *parameters])
            raise PassError(f"export: LightGBM objective '{whole}' has no ONNX form; these have: {known}")
        graph = ensemble_graph(
            _ensemble(dumped, parameters), activation, objective in CLASSIFIERS, model.signature, opset
        )
        fit_outputs(graph, [value.name for value in graph.graph.output], model.signature)
        onnx.checker.check_model(graph)
        onnx.save(graph, out / "model.onnx")
        details = {"opset": opset, "trees": len(dumped["tree_info"]), "features": dumped["max_feature_idx"] + 1}
        return Built("model.onnx", runtime_options={}, details=details)

    def inspect(self, file: Path) -> Signature | None:
        from hone.runtimes.lightgbm import read_booster

        _require()
        return feature_matrix(read_booster(file).num_feature())

    def outputs_of(self, file: Path) -> list[str]:
        from hone.runtimes.lightgbm import CLASSIFIERS, objective_of, read_booster

        try:
            return outputs_by_kind(objective_of(read_booster(file)) in CLASSIFIERS)
        except ImportError:
            return outputs_by_kind(True)


def _ensemble(dumped: dict[str, Any], parameters: list[str]) -> Ensemble:
    """Bring LightGBM's nested trees into flat arrays.

    Raises:
        PassError: naming the tree that holds what ONNX's trees can't.
    """
    per_round, infos = dumped["num_tree_per_iteration"], dumped["tree_info"]
    sigmoid = next((float(text.partition(":")[2]) for text in parameters if text.startswith("sigmoid:")), 1.0)
    # A random forest's trees are averaged, a boosted model's are summed.
    weight = sigmoid / (max(1, len(infos) // per_round) if dumped.get("average_output") else 1)
    trees = [_flat(info["tree_structure"], number) for number, info in enumerate(infos)]
    targets = [number % per_round for number in range(len(infos))]
    return Ensemble(trees, targets, [weight] * len(infos), np.zeros(per_round), "BRANCH_LEQ", "Truncate")


def _flat(root: dict[str, Any], number: int) -> dict[str, Any]:
    """Return one tree's nodes as arrays, the root first.

    LightGBM sends the categories of a split left and all else right, also NaN; XGBoost's form is the other way round.
    """
    tree: dict[str, Any] = {
        key: [] for key in ("left_children", "right_children", "split_indices", "split_conditions", "default_left")
    }
    tree["sets"] = {}
    waiting: list[tuple[dict[str, Any], int, str]] = [(root, -1, "")]
    while waiting:
        node, parent, side = waiting.pop()
        index = len(tree["left_children"])
        if side:
            tree[side][parent] = index
        leaf = "leaf_value" in node
        if "leaf_coeff" in node:
            raise PassError(f"export: tree {number} has linear models in its leaves; train with linear_tree=false")
        tree["left_children"].append(-1)
        tree["right_children"].append(-1)
        tree["split_indices"].append(0 if leaf else node["split_feature"])
        if leaf:
            tree["split_conditions"].append(node["leaf_value"])
            tree["default_left"].append(0)
            continue
        left, right = node["left_child"], node["right_child"]
        if node["decision_type"] == "==":
            tree["sets"][index] = checked_set(node["threshold"].split("||"), number)
            tree["split_conditions"].append(0.0)
            tree["default_left"].append(1)
            left, right = right, left
        else:
            _check_missing(node, number)
            tree["split_conditions"].append(rounded_down(node["threshold"]))
            tree["default_left"].append(_missing_goes_left(node))
        waiting.append((right, index, "right_children"))
        waiting.append((left, index, "left_children"))
    return tree


def _check_missing(node: dict[str, Any], number: int) -> None:
    if node["missing_type"] == "Zero":
        raise PassError(f"export: tree {number} takes zeros for missing; train with zero_as_missing=false")


def _missing_goes_left(node: dict[str, Any]) -> int:
    """Return where NaN goes: the learned side, or, in a tree trained without any, where zero goes."""
    return int(node["default_left"] if node["missing_type"] == "NaN" else node["threshold"] >= 0)


def _require() -> None:
    from hone.runtimes import runtime_class

    runtime_class("lightgbm").require()


def _load(loaded: LoadedRecipe) -> Any:
    """Return the Booster that the recipe names."""
    from hone.runtimes.lightgbm import read_booster

    return read_model(loaded, "a LightGBM", read_booster, _checked)


def _checked(model: Any, where: str) -> Any:
    import lightgbm

    if isinstance(model, lightgbm.LGBMModel):
        try:
            model = model.booster_
        except Exception as error:
            raise RecipeError(f"{where} a model that is not trained: {one_line(error)}") from error
    if not isinstance(model, lightgbm.Booster):
        raise RecipeError(f"{where} {type(model).__name__}, which is no LightGBM model; see source.framework")
    return model
