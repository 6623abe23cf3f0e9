"""ONNX files: ingest, run, export, and every mistake that a recipe can make with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hone.converters import sources
from hone.errors import RecipeError
from tests.models.dense import FEATURES, dense_answer, dense_onnx
from tests.sources import Work, assert_agree, export, ingest, run, write_recipe

ROWS = {"features": np.random.default_rng(0).normal(size=(6, FEATURES)).astype(np.float32)}


def graph_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: list[onnx.TensorProto] | None = None,
    opset: int = 20,
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "test", inputs, outputs, weights or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def two_outputs(opset: int = 20) -> onnx.ModelProto:
    """`twice = 2x` and `negative = -x`, whose axis 0 is called N."""
    kind, shape = TensorProto.FLOAT, ["N", FEATURES]
    return graph_of(
        [helper.make_node("Add", ["x", "x"], ["twice"]), helper.make_node("Neg", ["x"], ["negative"])],
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info(name, kind, shape) for name in ("twice", "negative")],
        opset=opset,
    )


def from_file(folder: Path, model: onnx.ModelProto, rows: dict[str, np.ndarray], **fields: Any) -> Work:
    folder.mkdir(exist_ok=True)
    onnx.save(model, folder / "model.onnx")
    return ingest(write_recipe(folder, {"file": "model.onnx"}, rows, **fields), folder / "source")


def test_graph_is_copied_and_gives_the_same(tmp_path: Path) -> None:
    dense_onnx(tmp_path / "model.onnx")
    work = ingest(write_recipe(tmp_path, {"file": "model.onnx"}, ROWS), tmp_path / "source")
    assert work.artifact.signature.outputs[0].describe() == "float32[batch, 3]"
    np.testing.assert_allclose(run(work.artifact, ROWS)["scores"], dense_answer(ROWS["features"]), rtol=1e-5)
    assert_agree(work, export(work, tmp_path / "onnx"), ROWS)


def test_axis_zero_is_called_batch(tmp_path: Path) -> None:
    rows = {"x": ROWS["features"]}
    work = from_file(tmp_path, two_outputs(), rows)
    assert [spec.describe() for spec in work.artifact.signature.inputs] == ["float32[batch, 4]"]
    assert [spec.name for spec in work.artifact.signature.outputs] == ["twice", "negative"]
    exported = onnx.load(export(work, tmp_path / "onnx").entry)
    assert exported.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("outputs", [["negative"], ["negative", "twice"], ["a", "b"]])
def test_outputs_are_chosen_and_renamed_by_the_signature(tmp_path: Path, outputs: list[str]) -> None:
    rows = {"x": ROWS["features"]}
    signature = {"inputs": {"x": {"shape": ["batch", FEATURES]}}, "outputs": outputs}
    work = from_file(tmp_path, two_outputs(), rows, signature=signature)
    graph = export(work, tmp_path / "onnx")
    assert [value.name for value in onnx.load(graph.entry).graph.output] == outputs
    assert_agree(work, graph, rows)
    first = run(work.artifact, rows)[outputs[0]]
    np.testing.assert_array_equal(first, -rows["x"] if outputs[0] == "negative" else 2 * rows["x"])


def test_old_operator_sets_are_converted_upward_and_newer_ones_kept(tmp_path: Path) -> None:
    rows = {"x": ROWS["features"]}
    for opset, wanted in ((9, 20), (15, 15), (21, 21)):
        work = from_file(tmp_path / str(opset), two_outputs(opset), rows)
        graph = export(work, tmp_path / f"onnx{opset}")
        assert onnx.load(graph.entry).opset_import[0].version == wanted
        assert_agree(work, graph, rows)


def test_external_data_is_taken_along(tmp_path: Path) -> None:
    dense_onnx(tmp_path / "small.onnx")
    model = onnx.load(tmp_path / "small.onnx")
    onnx.save(model, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    work = ingest(write_recipe(tmp_path, {"file": "model.onnx"}, ROWS), tmp_path / "source")
    (tmp_path / "weights.bin").unlink()
    np.testing.assert_allclose(run(work.artifact, ROWS)["scores"], dense_answer(ROWS["features"]), rtol=1e-5)


def external(folder: Path, location: str) -> Path:
    """Write a model whose weight is the first bytes of another file."""
    dense_onnx(folder / "model.onnx")
    model = onnx.load(folder / "model.onnx")
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "48")):
        weight.external_data.add(key=key, value=value)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


@pytest.mark.parametrize("location", ["../secret.bin", "link.bin", "ABSOLUTE"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(bytes(48))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    external(folder, str(tmp_path / "secret.bin") if location == "ABSOLUTE" else location)
    with pytest.raises(RecipeError, match=r"tensor 'W' names the file .* outside the model's folder"):
        ingest(write_recipe(folder, {"file": "model.onnx"}, ROWS), tmp_path / "source")


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    external(tmp_path, "weights.bin")
    with pytest.raises(RecipeError, match=r"tensor 'W' needs the file weights\.bin"):
        ingest(write_recipe(tmp_path, {"file": "model.onnx"}, ROWS), tmp_path / "source")


def test_external_data_of_a_constant_is_checked_too(tmp_path: Path) -> None:
    constant = numpy_helper.from_array(np.ones((1, FEATURES), np.float32), "hidden")
    constant.ClearField("raw_data")
    constant.data_location = TensorProto.EXTERNAL
    constant.external_data.add(key="location", value="../secret.bin")
    nodes = [helper.make_node("Constant", [], ["c"], value=constant), helper.make_node("Add", ["x", "c"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", FEATURES]) for name in ("x", "y")]
    (tmp_path / "model.onnx").write_bytes(graph_of(nodes, values[:1], values[1:]).SerializeToString())
    with pytest.raises(RecipeError, match="tensor 'hidden' names the file"):
        ingest(write_recipe(tmp_path, {"file": "model.onnx"}, {"x": ROWS["features"]}), tmp_path / "source")


LOADER = """
import onnx
from onnx import TensorProto, helper
def path():
    return "model.onnx"
def model():
    return onnx.load(__file__.replace("onnx_models.py", "model.onnx"))
def invalid():
    return helper.make_model(helper.make_graph([helper.make_node("NoSuchOperator", ["x"], ["y"])], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N"])]))
"""


@pytest.mark.parametrize("name", ["path", "model"])
def test_loader_may_give_a_path_or_a_model(tmp_path: Path, name: str) -> None:
    dense_onnx(tmp_path / "model.onnx")
    (tmp_path / "onnx_models.py").write_text(LOADER)
    work = ingest(write_recipe(tmp_path, {"loader": f"onnx_models:{name}"}, ROWS), tmp_path / "source")
    assert list(run(work.artifact, ROWS)) == ["scores"]


def test_invalid_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "onnx_models.py").write_text(LOADER)
    with pytest.raises(RecipeError, match=r"not a valid ONNX model.*NoSuchOperator"):
        ingest(write_recipe(tmp_path, {"loader": "onnx_models:invalid"}, ROWS), tmp_path / "source")


@pytest.mark.parametrize("content", [b"", b"no protobuf at all", b"\x08\x08"])
def test_corrupt_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(RecipeError, match="not a readable ONNX model"):
        ingest(write_recipe(tmp_path, {"file": "model.onnx"}, ROWS), tmp_path / "source")


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"features": {"shape": ["batch", FEATURES]}}, ["a", "b"], r"model's outputs \['scores'\]"),
        ({"feature": {"shape": ["batch", FEATURES]}}, [], "no input 'feature'; did you mean 'features'"),
        ({"features": {"shape": ["batch", 5]}}, [], r"fixed to float32\[batch, 4\]"),
        ({"features": {"shape": ["batch", FEATURES], "dtype": "int64"}}, [], r"is float32\[batch, 4\] in the graph"),
    ],
)
def test_signature_that_does_not_fit_is_named(
    tmp_path: Path, inputs: dict[str, Any], outputs: list[str], message: str
) -> None:
    dense_onnx(tmp_path / "model.onnx")
    signature = {"inputs": inputs, "outputs": outputs}
    with pytest.raises(RecipeError, match=message):
        ingest(write_recipe(tmp_path, {"file": "model.onnx"}, ROWS, signature=signature), tmp_path / "source")


def test_inspect_names_unnamed_axes(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3, None]) for name in ("x", "y")]
    onnx.save(graph_of(nodes, values[:1], values[1:]), tmp_path / "model.onnx")
    signature = sources.get("onnx").inspect(tmp_path / "model.onnx")
    assert signature is not None
    assert signature.inputs[0].describe() == "float32[batch, 3, x_2]"


def test_outputs_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])]
    sequence = [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)]
    onnx.save(
        graph_of([helper.make_node("SequenceConstruct", ["x"], ["y"])], values, sequence), tmp_path / "model.onnx"
    )
    with pytest.raises(RecipeError, match="'y' is a sequence_type, not a tensor"):
        ingest(write_recipe(tmp_path, {"file": "model.onnx"}, {"x": ROWS["features"][:, :2]}), tmp_path / "source")
