"""Boosted trees as an ONNX graph: XGBoost's, and what `converters.sources.trees.lightgbm` brings into the same form.

XGBoost's JSON holds each tree as flat arrays, which map one to one onto ONNX's TreeEnsembleRegressor: a row goes left
when `feature < condition`, a missing value goes where `default_left` says, leaves are summed per target.

A categorical split sends the categories of a set right and all others left: `category_sets.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from hone.errors import PassError
from hone.signature import Signature, TensorSpec

from ...graph.graph_signature import joined_columns, value_info
from .category_sets import NODE_KEYS, Row, SetSplit, checked_set, set_rows

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
    ensemble = Ensemble(trees, targets, weights, base, "BRANCH_LT", "Floor")
    return ensemble_graph(ensemble, activation, objective in ("binary:logistic", "multi:softprob"), signature, opset)


@dataclass(frozen=True)
class Ensemble:
    """Trees as flat arrays, in the layout of XGBoost's JSON.

    Attributes:
        trees: each with left_children (-1: a leaf), right_children, split_indices (features), split_conditions
            (thresholds, or a leaf's value) and default_left (where a missing value goes), by node; and `sets`: by
            categorical node, the categories that go right.
        targets: what each tree adds to.
        weights: of each tree.
        base: what is added to each target.
        mode: the comparison that sends a row left, as ONNX calls it.
        rounding: what makes a category of a value: Floor (-0.5 is none) or Truncate (-0.5 is 0).
    """

    trees: list[dict[str, Any]]
    targets: list[int]
    weights: list[float]
    base: np.ndarray
    mode: str
    rounding: str

    @property
    def categorical(self) -> list[int]:
        """The features that some node splits by category."""
        return sorted({int(tree["split_indices"][node]) for tree in self.trees for node in tree["sets"]})


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
    matrix = "all_columns" if ensemble.categorical else "matrix"
    nodes = joined_columns(signature, TensorProto.FLOAT, matrix)
    if ensemble.categorical:
        nodes += _categories_first(ensemble, matrix)
    finish: Callable[[str, int], tuple[list[onnx.NodeProto], list[TensorSpec]]] = (
        _classifier if classifies else _regressor
    )
    more, outputs = finish(activation, len(ensemble.base))
    graph = helper.make_graph(
        [*nodes, summed_leaves(ensemble), *more],
        "trees",
        [value_info(spec) for spec in signature.inputs],
        [value_info(spec) for spec in outputs],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", TREE_OPSET)],
        ir_version=10,
    )


def summed_leaves(ensemble: Ensemble) -> onnx.NodeProto:
    """Return the node that adds the trees' leaves up: `matrix` to `margin`."""
    return helper.make_node(
        "TreeEnsembleRegressor",
        ["matrix"],
        ["margin"],
        name="trees",
        domain="ai.onnx.ml",
        n_targets=len(ensemble.base),
        base_values=[float(value) for value in ensemble.base],
        aggregate_function="SUM",
        post_transform="NONE",
        **_attributes(ensemble),
    )


def rounded_down(threshold: float) -> float:
    """Return the largest float32 that is not over a float64 threshold."""
    with np.errstate(over="ignore"):
        rounded = np.float32(threshold)
    if float(rounded) > threshold:
        rounded = np.nextafter(rounded, np.float32(-np.inf))
    return float(rounded)


def _trees(booster: Any) -> tuple[list[dict[str, Any]], list[int], list[float]]:
    """Return the trees, the target that each adds to, and the weight of each (1 but for DART)."""
    content = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    weights = content.get("weight_drop")
    model = content.get("gbtree", content)["model"]
    trees = model["trees"]
    for index, tree in enumerate(trees):
        starts, sizes = tree.get("categories_segments", []), tree.get("categories_sizes", [])
        tree["sets"] = {
            node: checked_set(tree["categories"][start : start + size], index)
            for node, start, size in zip(tree.get("categories_nodes", []), starts, sizes, strict=True)
        }
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


def _categories_first(ensemble: Ensemble, columns: str) -> list[onnx.NodeProto]:
    """Return nodes that put the categorical features, as whole numbers, before all columns: `matrix`."""
    nodes = [
        helper.make_node("Constant", [], ["categorical_indices"], value_ints=ensemble.categorical),
        helper.make_node("Gather", [columns, "categorical_indices"], ["categorical_values"], axis=1),
    ]
    if ensemble.rounding == "Floor":
        nodes.append(helper.make_node("Floor", ["categorical_values"], ["whole_categories"]))
    else:
        nodes += [
            helper.make_node("Abs", ["categorical_values"], ["categorical_sizes"]),
            helper.make_node("Floor", ["categorical_sizes"], ["categorical_whole"]),
            helper.make_node("Sign", ["categorical_values"], ["categorical_signs"]),
            helper.make_node("Mul", ["categorical_whole", "categorical_signs"], ["whole_categories"]),
        ]
    return [*nodes, helper.make_node("Concat", ["whole_categories", columns], ["matrix"], axis=1)]


def _attributes(ensemble: Ensemble) -> dict[str, Any]:
    """Return the node and leaf arrays of TreeEnsembleRegressor."""
    nodes: dict[str, list[Any]] = {f"nodes_{key}": [] for key in NODE_KEYS}
    leaves: dict[str, list[Any]] = {f"target_{key}": [] for key in ("treeids", "nodeids", "ids", "weights")}
    categorical = ensemble.categorical
    for number, (tree, target, weight) in enumerate(
        zip(ensemble.trees, ensemble.targets, ensemble.weights, strict=True)
    ):
        values = tree["split_conditions"]
        for row in _rows(tree, ensemble.mode, categorical):
            for key, value in zip(NODE_KEYS, (number, *row), strict=True):
                nodes[f"nodes_{key}"].append(value)
            node, mode = row[0], row[2]
            if mode == "LEAF":
                leaves["target_treeids"].append(number)
                leaves["target_nodeids"].append(node)
                leaves["target_ids"].append(int(target))
                leaves["target_weights"].append(weight * float(values[node]) if node < len(values) else 0.0)
    return {**nodes, **leaves}


def _rows(tree: dict[str, Any], mode: str, categorical: list[int]) -> list[Row]:
    """Return a tree's nodes: its own, then those that its sets need more."""
    rows: list[Row] = []
    added: list[Row] = []
    numbers = count(len(tree["left_children"]))
    for node, left in enumerate(tree["left_children"]):
        feature, right = int(tree["split_indices"][node]), int(tree["right_children"][node])
        missing_left = bool(tree["default_left"][node])
        if left == -1:
            rows.append((node, 0, "LEAF", 0.0, 0, 0, 0))
        elif node not in tree["sets"]:
            value = float(tree["split_conditions"][node])
            rows.append((node, feature + len(categorical), mode, value, int(left), right, int(missing_left)))
        else:
            split = SetSplit(categorical.index(feature), int(left), right, missing_left)
            first, *more = set_rows(node, tree["sets"][node], split, numbers)
            rows.append(first)
            added += more
    return rows + added


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
