"""Which presets fit a graph, a host and a budget: the table of rules, and the facts that it reads."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hone.converters.graph.contents import Contents, contents_of
from hone.converters.run.candidates.facts import Facts, Host, this_host
from hone.converters.run.candidates.rules import FLOAT, RULES
from hone.converters.run.plan import PRESETS
from hone.recipe import Recipe
from tests.models.perceptron import perceptron

HOST = Host("a processor", bfloat16=True, gpu="", apple=False, openvino="")
DENSE = Contents(dense=4, weights=10.0, in_dense=0.9)
CONVOLVED = Contents(convolutions=5, dense=1, weights=10.0, in_convolutions=0.8, in_dense=0.05)
ENCODER = Contents(dense=36, attention=6, weights=90.0, in_dense=0.5, in_tables=0.5)
RECURRENT = Contents(recurrent=2, weights=1.0, in_recurrent=0.9)
TREES = Contents(trees=1, weights=0.1)


def facts(graph: Contents, host: Host = HOST, framework: str = "onnx", **recipe: Any) -> Facts:
    content = {"name": "m", "source": {"file": "m.onnx"}, "evaluation": "e.npz", "calibration": "c.npz", **recipe}
    return Facts(framework, True, graph, host, Recipe.model_validate(content))


def fitting(found: Facts) -> set[str]:
    return {rule.preset for rule in RULES if not rule.against(found)}


def reason(found: Facts, preset: str) -> str:
    return next(rule.against(found) for rule in RULES if rule.preset == preset)


def test_rules_name_presets_each_once_and_wait_for_one_before_them() -> None:
    names = [rule.preset for rule in RULES]
    assert len(set(names)) == len(names) and set(names) <= set(PRESETS)
    assert all(rule.after in names[:place] for place, rule in enumerate(RULES) if rule.after)
    assert all(rule.why for rule in RULES)


@pytest.mark.parametrize(
    ("graph", "made", "left"),
    [
        (DENSE, {"onnx-int8-dynamic", "onnx-int8-static"}, {"onnx-fused-fp32", "pruned50-onnx-int8"}),
        (CONVOLVED, {"onnx-int8-static", "openvino-int8"}, {"onnx-int8-dynamic", "onnx-fused-int8"}),
        (ENCODER, {"onnx-fused-int8", "onnx-int8-dynamic", "onnx-smooth-mixed", "openvino-int8"}, {"onnx-int8-static"}),
        (RECURRENT, {"onnx-int8-dynamic"}, {"onnx-int8-static", "openvino-int8"}),
    ],
)
def test_the_graph_decides(graph: Contents, made: set[str], left: set[str]) -> None:
    fit = fitting(facts(graph))
    assert made | {FLOAT} <= fit and not left & fit


@pytest.mark.parametrize("graph", [TREES, replace(DENSE, quantized=True), Contents()])
def test_where_fewer_bits_gain_nothing_the_float_graph_is_left(graph: Contents) -> None:
    assert fitting(facts(graph)) == {FLOAT}


def test_the_host_decides() -> None:
    assert not {name for name in fitting(facts(DENSE)) if name.startswith(("tensorrt", "mlx", "onnx-cuda"))}
    assert {"tensorrt-fp16", "onnx-cuda-fp16"} <= fitting(facts(DENSE, replace(HOST, gpu="a GPU")))
    assert "mlx-q8" in fitting(facts(DENSE, replace(HOST, apple=True)))
    without = facts(DENSE, replace(HOST, openvino="openvino is not installed"))
    assert reason(without, "openvino-fp32") == "openvino is not installed"
    assert reason(facts(DENSE, replace(HOST, bfloat16=False)), "openvino-bf16") == "this processor has no bfloat16"
    assert this_host().describe()


def test_the_budget_decides() -> None:
    small = facts(DENSE, budget={"size_mb": 3})
    assert {"onnx-weights-int8", "onnx-int8-dynamic"} <= fitting(small)
    assert "float16 is about 5 MB, 3 are allowed" in reason(small, "onnx-fp16")
    assert reason(small, "onnx-weights-int4") == "weights of 8 bits are small enough"
    assert "onnx-weights-int4" in fitting(facts(DENSE, budget={"size_mb": 2}))
    assert "onnx-weights-int4" in fitting(facts(DENSE, objective="size"))
    assert "gains bytes rather than time" in reason(facts(DENSE), "onnx-weights-int8")


def test_padding_is_left_out_where_several_texts_are_judged_together() -> None:
    several = {"budget": {"at": {"batch": 8}}}
    unpadded = {"openvino-unpadded-bf16", "openvino-unpadded-int8-bf16"}
    assert unpadded <= fitting(replace(facts(ENCODER, **several), masked=True))
    older = facts(ENCODER, replace(HOST, bfloat16=False), **several)
    assert {"openvino-unpadded-fp32", "openvino-unpadded-int8"} <= fitting(replace(older, masked=True))
    assert "no input is a mask" in reason(facts(ENCODER, **several), "openvino-unpadded-bf16")
    assert "judged one at a time" in reason(replace(facts(ENCODER), masked=True), "openvino-unpadded-int8-bf16")


def test_data_and_hooks_decide() -> None:
    assert reason(facts(DENSE, calibration=None), "onnx-int8-static") == "the recipe has no calibration rows"
    torch = facts(CONVOLVED, framework="torch", train="net:train")
    assert {"pruned50-onnx-int8", "onnx-int8-qat"} <= fitting(torch)
    assert reason(facts(CONVOLVED, framework="torch"), "pruned50-onnx-int8") == "the recipe has no train hook"
    assert reason(facts(CONVOLVED, train="net:train"), "onnx-int8-qat") == "qat changes no onnx models"


def test_contents_are_those_of_the_graph() -> None:
    found = contents_of(perceptron())
    assert (found.dense, found.attention, found.multiplies) == (3, 0, True)
    assert found.in_dense == 1 and "3 matrix products (100% of the weights)" in found.describe()


def test_contents_of_branches_count_and_attention_is_seen_through_masks() -> None:
    weights = numpy_helper.from_array(np.ones((8, 8, 3, 3), np.float32), "w")
    body = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        "body",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [weights],
    )
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"]),
        helper.make_node("Where", ["mask", "zero", "shares"], ["kept"]),
        helper.make_node("Identity", ["q"], ["v"]),
        helper.make_node("MatMul", ["kept", "v"], ["out"]),
        helper.make_node("If", ["flag"], ["z"], then_branch=body, else_branch=body),
    ]
    found = contents_of(helper.make_model(helper.make_graph(nodes, "g", [], [])))
    assert (found.attention, found.convolutions, found.dense) == (1, 2, 0)
    assert found.in_convolutions > 0.9


def test_trees_are_seen() -> None:
    nodes = [helper.make_node("TreeEnsembleClassifier", ["x"], ["y"], domain="ai.onnx.ml")]
    found = contents_of(onnx.helper.make_model(helper.make_graph(nodes, "g", [], [])))
    assert found.trees == 1 and "1 ensemble of trees" in found.describe()
