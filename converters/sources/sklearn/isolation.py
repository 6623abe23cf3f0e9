"""IsolationForest as one tree ensemble.

A row's score is 2 to the power of minus its mean path length over that of as many samples (Liu, Ting and Zhou,
Isolation Forest, 2008), and the path length to a leaf never changes: it is the leaf's weight, and one operator walks
through all trees. skl2onnx's own form has a dozen nodes a tree.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..trees.boosted_trees import TREE_OPSET, Ensemble, rounded_down, summed_leaves


def convert_isolation_forest(scope: Any, operator: Any, container: Any) -> None:
    """Add a forest's nodes: `label` (int64, -1 for an anomaly) and `scores`, as its decision_function."""
    from onnx import TensorProto, helper
    from skl2onnx.common.data_types import guess_proto_type

    forest = operator.raw_operator
    label, scores = (variable.full_name for variable in operator.outputs)

    def node(name: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        result: str = output or scope.get_unique_variable_name(f"forest_{name.lower()}")
        container.add_node(name, list(inputs), result, name=scope.get_unique_operator_name(name), **attributes)
        return result

    def constant(value: float, kind: int = TensorProto.FLOAT) -> str:
        result: str = scope.get_unique_variable_name("forest_constant")
        container.add_initializer(result, kind, [1], [value])
        return result

    ensemble = summed_leaves(_ensemble(forest))
    attributes = {each.name: helper.get_attribute_value(each) for each in ensemble.attribute}
    rows = node("Cast", operator.inputs[0].full_name, to=TensorProto.FLOAT)  # as scikit-learn does before its trees
    where: dict[str, Any] = {"op_domain": ensemble.domain, "op_version": TREE_OPSET}
    exponents = node(ensemble.op_type, rows, **where, **attributes)
    found = node("Sub", constant(-float(forest.offset_)), node("Exp", exponents))
    node("Cast", found, to=guess_proto_type(operator.outputs[1].type), output=scores)
    odd = node("Less", found, constant(0.0))
    node("Where", odd, constant(-1, TensorProto.INT64), constant(1, TensorProto.INT64), output=label)


def _ensemble(forest: Any) -> Ensemble:
    """Return the trees; the sum of a row's leaves is the natural logarithm of its score."""
    trees = [
        _flat(estimator.tree_, features)
        for estimator, features in zip(forest.estimators_, forest.estimators_features_, strict=True)
    ]
    longest = len(trees) * float(_path_lengths(np.array([forest.max_samples_]))[0])
    # Of one sample no path has a length; scikit-learn then gives each row the score 1/2.
    weight, base = (-math.log(2) / longest, 0.0) if longest else (0.0, -math.log(2))
    return Ensemble(trees, [0] * len(trees), [weight] * len(trees), np.array([base]), "BRANCH_LEQ", "Floor")


def _flat(tree: Any, features: np.ndarray) -> dict[str, Any]:
    """Return one tree's nodes as arrays; the value of a leaf is the length of the path to it."""
    left, right = tree.children_left, tree.children_right
    depths = np.zeros(tree.node_count)
    for parent in np.flatnonzero(left != -1):  # a parent's number is below its children's
        depths[[left[parent], right[parent]]] = depths[parent] + 1
    lengths = depths + _path_lengths(tree.n_node_samples)
    values = [
        lengths[node] if left[node] == -1 else rounded_down(float(tree.threshold[node]))
        for node in range(tree.node_count)
    ]
    return {
        "left_children": left,
        "right_children": right,
        "split_indices": features[np.maximum(tree.feature, 0)],
        "split_conditions": values,
        "default_left": getattr(tree, "missing_go_to_left", np.zeros(tree.node_count)),
        "sets": {},
    }


def _path_lengths(samples: np.ndarray) -> np.ndarray:
    """Return the mean length of the paths in a tree of so many samples each (equation 1 of the paper)."""
    several = np.maximum(samples, 3).astype(np.float64)
    lengths: np.ndarray = 2 * (np.log(several - 1) + np.euler_gamma) - 2 * (several - 1) / several
    return np.where(samples > 2, lengths, np.where(samples == 2, 1.0, 0.0))
