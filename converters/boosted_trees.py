"""Boosted trees as an ONNX graph: XGBoost's, and what `converters.sources.lightgbm` brings into the same form.

XGBoost's JSON holds each tree as flat arrays, which map one to one onto ONNX's TreeEnsembleRegressor: a row goes left
when `feature < condition`, a missing value goes where `default_left` says, leaves are summed per target.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from converters.graph_signature import joined_columns, value_info
from hone.errors import PassError
from hone.signature import Signature, TensorSpec

TREE_OPSET = 3
ACTIVATIONS = {
    "Identity": (
        "reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror", "reg:quantileerror",
        "reg:expectileerror", "binary:logitraw", "rank:pairwise", "rank:ndcg", "rank:map",
    ),
    "Sigmoid": ("binary:logistic", "reg:logistic"),
    "Softmax": ("multi:softprob",),
    "Exp": ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"),
    "Sign": ("binary:hinge",),
}  # fmt: skip


def tree_graph(booster: Any, objective: str, signature: Signature, opset: int) -> onnx.ModelProto:
    """Return a booster as an ONNX model that gives `label` and `probabilities`, or `prediction`.

    Args:
        booster: an `xgboost.Booster` of trees.
        objective: the name of its objective, which decides what is done with the sum of the leaves.
        signature: the inputs; one matrix or one column per feature.
        opset: version of the default operator set.

    Raises:
        PassError: naming what the trees hold that ONNX can't express.
    """
    activation = next((name for name, objectives in ACTIVATIONS.items() if objective in objectives), None)
    if activation is None:
        known = ", ".join(sorted(name for objectives in ACTIVATIONS.values() for name in objectives))
        raise PassError(f"export: XGBoost objective '{objective}' has no ONNX form; these have: {known}")
    trees, targets, weights = _trees(booster)
    base = _base_margins(booster, trees, targets, weights)
    ensemble = Ensemble(trees, targets, weights, base, "BRANCH_LT")
    return ensemble_graph(ensemble, activation, objective in ("binary:logistic", "multi:softprob"), signature, opset)


@dataclass(frozen=True)
class Ensemble:
    """Trees as flat arrays, in the layout of XGBoost's JSON.

    Attributes:
        trees: each with left_children (-1: a leaf), right_children, split_indices (features), split_conditions
            (thresholds, or a leaf's value) and default_left (where a missing value goes), by node.
        targets: what each tree adds to.
        weights: of each tree.
        base: what is added to each target.
        mode: the comparison that sends a row left, as ONNX calls it.
    """

    trees: list[dict[str, Any]]
    targets: list[int]
    weights: list[float]
    base: np.ndarray
    mode: str


def ensemble_graph(
    ensemble: Ensemble, activation: str, classifies: bool, signature: Signature, opset: int
) -> onnx.ModelProto:
    """Return trees as an ONNX model.

    Args:
        ensemble: the trees.
        activation: what is done with the sums: Identity, Sigmoid, Softmax, Exp or Sign.
        classifies: give `label` and `probabilities`, else `prediction`.
        signature: the inputs.
        opset: version of the default operator set.
    """
    base = ensemble.base
    nodes = joined_columns(signature, TensorProto.FLOAT, "matrix")
    nodes.append(
        helper.make_node(
            "TreeEnsembleRegressor",
            ["matrix"],
            ["margin"],
            name="trees",
            domain="ai.onnx.ml",
            n_targets=len(base),
            base_values=[float(value) for value in base],
            aggregate_function="SUM",
            post_transform="NONE",
            **_attributes(ensemble),
        )
    )
    finish: Callable[[str, int], tuple[list[onnx.NodeProto], list[TensorSpec]]] = (
        _classifier if classifies else _regressor
    )
    more, outputs = finish(activation, len(base))
    graph = helper.make_graph(
        [*nodes, *more],
        "trees",
        [value_info(spec) for spec in signature.inputs],
        [value_info(spec) for spec in outputs],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", TREE_OPSET)],
        ir_version=10,
    )


def _trees(booster: Any) -> tuple[list[dict[str, Any]], list[int], list[float]]:
    """Return the trees, the target that each adds to, and the weight of each (1 but for DART)."""
    content = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    weights = content.get("weight_drop")
    model = content.get("gbtree", content)["model"]
    trees = model["trees"]
    for index, tree in enumerate(trees):
        if any(tree["split_type"]):
            raise PassError(
                f"export: tree {index} splits on a categorical feature, which ONNX trees can't; "
                "train on one-hot or ordinal encoded columns"
            )
        if int(tree["tree_param"]["size_leaf_vector"]) > 1:
            raise PassError(
                f"export: tree {index} has a vector in each leaf; train with multi_strategy='one_output_per_tree'"
            )
    return trees, model["tree_info"], weights or [1.0] * len(trees)


def _base_margins(booster: Any, trees: list[dict[str, Any]], targets: list[int], weights: list[float]) -> np.ndarray:
    """Return what is added to the leaves per target: one row's margin less its leaves.

    Measured rather than read: how `base_score` is written and linked differs between versions and objectives.
    """
    import xgboost

    row = xgboost.DMatrix(np.zeros((1, booster.num_features()), np.float32))
    margin = booster.predict(row, output_margin=True, validate_features=False).reshape(-1).astype(np.float64)
    leaves = booster.predict(row, pred_leaf=True, validate_features=False).reshape(-1).astype(int)
    for tree, target, weight, leaf in zip(trees, targets, weights, leaves, strict=True):
        margin[target] -= weight * tree["split_conditions"][leaf]
    return margin


def _attributes(ensemble: Ensemble) -> dict[str, Any]:
    """Return the node and leaf arrays of TreeEnsembleRegressor."""
    nodes: dict[str, list[Any]] = {
        f"nodes_{key}": []
        for key in (
            "treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids",
            "missing_value_tracks_true",
        )
    }  # fmt: skip
    leaves: dict[str, list[Any]] = {f"target_{key}": [] for key in ("treeids", "nodeids", "ids", "weights")}
    for number, (tree, target, weight) in enumerate(
        zip(ensemble.trees, ensemble.targets, ensemble.weights, strict=True)
    ):
        for node, left in enumerate(tree["left_children"]):
            is_leaf = left == -1
            value = float(tree["split_conditions"][node])
            nodes["nodes_treeids"].append(number)
            nodes["nodes_nodeids"].append(node)
            nodes["nodes_featureids"].append(0 if is_leaf else int(tree["split_indices"][node]))
            nodes["nodes_modes"].append("LEAF" if is_leaf else ensemble.mode)
            nodes["nodes_values"].append(0.0 if is_leaf else value)
            nodes["nodes_truenodeids"].append(0 if is_leaf else int(left))
            nodes["nodes_falsenodeids"].append(0 if is_leaf else int(tree["right_children"][node]))
            nodes["nodes_missing_value_tracks_true"].append(int(bool(tree["default_left"][node]) and not is_leaf))
            if is_leaf:
                leaves["target_treeids"].append(number)
                leaves["target_nodeids"].append(node)
                leaves["target_ids"].append(int(target))
                leaves["target_weights"].append(weight * value)
    return {**nodes, **leaves}


def _classifier(activation: str, targets: int) -> tuple[list[onnx.NodeProto], list[TensorSpec]]:
    outputs = [
        TensorSpec(name="label", dtype="int64", shape=("batch",)),
        TensorSpec(name="probabilities", shape=("batch", max(targets, 2))),
    ]
    if activation == "Softmax":
        nodes = [
            helper.make_node("Softmax", ["margin"], ["probabilities"], axis=1),
            helper.make_node("ArgMax", ["probabilities"], ["label"], axis=1, keepdims=0),
        ]
        return nodes, outputs
    nodes = [
        helper.make_node("Sigmoid", ["margin"], ["positive"]),
        helper.make_node("Constant", [], ["one"], value_floats=[1.0]),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Sub", ["one", "positive"], ["negative"]),
        helper.make_node("Concat", ["negative", "positive"], ["probabilities"], axis=1),
        helper.make_node("Greater", ["positive", "half"], ["is_positive"]),
        helper.make_node("Cast", ["is_positive"], ["column"], to=TensorProto.INT64),
        *_flattened("column", "label"),
    ]
    return nodes, outputs


def _regressor(activation: str, targets: int) -> tuple[list[onnx.NodeProto], list[TensorSpec]]:
    last = "prediction" if targets > 1 else "column"
    if activation == "Sign":
        nodes = [
            helper.make_node("Constant", [], ["zero"], value_float=0.0),
            helper.make_node("Greater", ["margin", "zero"], ["is_positive"]),
            helper.make_node("Cast", ["is_positive"], [last], to=TensorProto.FLOAT),
        ]
    else:
        nodes = [helper.make_node(activation, ["margin"], [last])]
    if targets > 1:
        return nodes, [TensorSpec(name="prediction", shape=("batch", targets))]
    return [*nodes, *_flattened("column", "prediction")], [TensorSpec(name="prediction", shape=("batch",))]


def _flattened(column: str, name: str) -> list[onnx.NodeProto]:
    shape = f"{name}_shape"
    return [
        helper.make_node("Constant", [], [shape], value_ints=[-1]),
        helper.make_node("Reshape", [column, shape], [name]),
    ]
