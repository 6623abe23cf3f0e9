"""MLX operators against ONNX Runtime, on the same graphs and inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hone import runtimes
from hone.artifact import Artifact, Manifest, seal
from hone.converters.context import PassContext
from hone.converters.passes.export.mlx import Options, mlx
from hone.errors import PassError
from hone.signature import Signature, TensorSpec

RANDOM = np.random.default_rng(0)
F = np.float32


def normal(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=shape).astype(F)


def onnx_artifact(folder: Path, nodes: list[Any], weights: dict[str, np.ndarray], shape: tuple[Any, ...]) -> Artifact:
    """Seal a graph from `x` to `y` as an ONNX artifact."""
    folder.mkdir(parents=True)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(shape))],
        [helper.make_value_info("y", helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None))],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "model.onnx")
    signature = Signature(
        inputs=(TensorSpec(name="x", shape=shape),), outputs=(TensorSpec(name="y", shape=("batch",)),)
    )
    return seal(folder, Manifest(name="t", runtime="onnx", precision="fp32", entry="model.onnx", signature=signature))


def compile_mlx(artifact: Artifact, folder: Path, **options: Any) -> tuple[Artifact, dict[str, Any]]:
    folder.mkdir()
    context = PassContext(None, artifact.signature, lambda _: None)  # type: ignore[arg-type]
    built = mlx(artifact, Options(**options), folder, context)
    manifest = artifact.manifest.model_copy(update={"runtime": "mlx", "entry": built.entry, "files": {}})
    return seal(folder, manifest), built.details


def check(tmp_path: Path, nodes: list[Any], weights: dict[str, np.ndarray], *inputs: np.ndarray) -> None:
    shape = ("batch", *inputs[0].shape[1:])
    source = onnx_artifact(tmp_path / "onnx", nodes, weights, shape)
    reference = runtimes.load(source)
    target = runtimes.load(compile_mlx(source, tmp_path / "mlx")[0])
    for array in inputs:
        wanted, got = reference.run({"x": array})["y"], target.run({"x": array})["y"]
        np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=2e-5)


def node(op: str, inputs: str = "x", outputs: str = "y", **attributes: Any) -> Any:
    name = f"n_{op}" if outputs == "y" else f"n_{op}_{outputs}"
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, **attributes)


IMAGE = normal(2, 4, 9, 9)


@pytest.mark.parametrize(
    "attributes",
    [
        {"pads": [1, 1, 1, 1]},
        {"strides": [2, 2], "pads": [0, 1, 1, 0]},
        {"dilations": [2, 2]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER"},
        {"group": 2},
    ],
)
def test_convolution(tmp_path: Path, attributes: dict[str, Any]) -> None:
    weights = {"w": normal(6, 4 // attributes.get("group", 1), 3, 3), "b": normal(6)}
    check(tmp_path, [node("Conv", "x w b", kernel_shape=[3, 3], **attributes)], weights, IMAGE, IMAGE[:1])


def test_convolution_in_one_dimension(tmp_path: Path) -> None:
    check(tmp_path, [node("Conv", "x w", kernel_shape=[3], pads=[1, 1])], {"w": normal(5, 4, 3)}, normal(2, 4, 8))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [2, 2], "strides": [2, 2]},
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "auto_pad": "SAME_UPPER"},
    ],
)
def test_pooling(tmp_path: Path, op: str, attributes: dict[str, Any]) -> None:
    check(tmp_path, [node(op, **attributes)], {}, IMAGE)


@pytest.mark.parametrize(
    "op",
    ["Relu", "Sigmoid", "Tanh", "Erf", "Softplus", "HardSwish", "HardSigmoid", "LeakyRelu", "Elu", "Gelu", "Exp",
     "Neg", "Abs", "Floor", "GlobalAveragePool", "GlobalMaxPool", "Flatten", "Identity"],
)  # fmt: skip
def test_elementwise_and_global(tmp_path: Path, op: str) -> None:
    check(tmp_path, [node(op)], {}, IMAGE)


@pytest.mark.parametrize(
    ("built", "weights"),
    [
        (lambda: [node("Gemm", "x w b", transB=1, alpha=0.5, beta=2.0)], {"w": normal(5, 6), "b": normal(5)}),
        (lambda: [node("MatMul", "x w")], {"w": normal(6, 5)}),
        (lambda: [node("Softmax", axis=-1)], {}),
        (lambda: [node("LogSoftmax")], {}),
        (lambda: [node("Add", "x w")], {"w": normal(6)}),
        (lambda: [node("Div", "x w")], {"w": np.abs(normal(6)) + 1}),
        (lambda: [node("Pow", "x w")], {"w": np.array(2.0, F)}),
        (lambda: [node("Clip", "x w v")], {"w": np.array(-0.5, F), "v": np.array(0.5, F)}),
        (lambda: [node("Max", "x w")], {"w": normal(6)}),
        (lambda: [node("LayerNormalization", "x w b", axis=-1)], {"w": normal(6), "b": normal(6)}),
        (lambda: [node("ReduceMean", "x w", keepdims=1)], {"w": np.array([1])}),
        (lambda: [node("ReduceSum", "x w", keepdims=0)], {"w": np.array([-1])}),
        (lambda: [node("Transpose", "x", "t", perm=[1, 0]), node("Transpose", "t")], {}),
        (lambda: [node("Slice", "x w v u s")],
         {"w": np.array([4]), "v": np.array([-100]), "u": np.array([1]), "s": np.array([-2])}),
        (lambda: [node("Gather", "x w", axis=1)], {"w": np.array([0, -1, 2])}),
        (lambda: [node("Split", "x w", "a y", axis=1)], {"w": np.array([2, 4])}),
        (lambda: [node("Concat", "x x", axis=1)], {}),
        (lambda: [node("Pad", "x w v")], {"w": np.array([0, 1, 0, 2]), "v": np.array(3.0, F)}),
        (lambda: [node("Tile", "x w")], {"w": np.array([1, 2])}),
        (lambda: [node("Unsqueeze", "x w", "u"), node("Squeeze", "u w")], {"w": np.array([1])}),
        (lambda: [node("Less", "x w", "c"), node("Where", "c x w")], {"w": np.array(0.0, F)}),
        (lambda: [node("ArgMax", "x", "i", axis=1), node("Cast", "i", to=1)], {}),
        # A shape computed from the input's: [batch, 6] to [batch, 2, 3].
        (lambda: [node("Shape", "x", "s", start=0, end=1), node("Concat", "s w", "t", axis=0), node("Reshape", "x t")],
         {"w": np.array([2, 3])}),
        (lambda: [node("Shape", "x", "s"), node("Expand", "w s", "e"), node("Mul", "x e")], {"w": normal(1, 6)}),
    ],
)  # fmt: skip
def test_operator(tmp_path: Path, built: Any, weights: dict[str, np.ndarray]) -> None:
    check(tmp_path, built(), weights, normal(3, 6), normal(1, 6))


def test_batch_normalization(tmp_path: Path) -> None:
    weights = {"s": normal(4), "b": normal(4), "m": normal(4), "v": np.abs(normal(4)) + 0.1}
    check(tmp_path, [node("BatchNormalization", "x s b m v")], weights, IMAGE)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_recurrent(tmp_path: Path, op: str, gates: int, direction: str) -> None:
    count = 2 if direction == "bidirectional" else 1
    weights = {"w": normal(count, gates * 5, 3), "r": normal(count, gates * 5, 5), "b": normal(count, gates * 10)}
    options = {"linear_before_reset": 1} if op == "GRU" else {}
    nodes = [
        node("Transpose", "x", "t", perm=[1, 0, 2]),
        node(op, "t w r b", "o", hidden_size=5, direction=direction, **options),
        helper.make_node("Transpose", ["o"], ["y"], perm=[2, 0, 1, 3]),
    ]
    check(tmp_path, nodes, weights, normal(2, 7, 3))


def test_unsupported_operator_is_named_before_any_work(tmp_path: Path) -> None:
    source = onnx_artifact(tmp_path / "onnx", [node("Det")], {}, ("batch", 2, 2))
    with pytest.raises(PassError, match=r"node 'n_Det' has operator ai\.onnx\.Det"):
        compile_mlx(source, tmp_path / "mlx")
    assert not list((tmp_path / "mlx").iterdir())


@pytest.mark.parametrize(("bits", "tolerance", "ratio"), [(8, 0.02, 0.35), (4, 0.3, 0.25)])
def test_quantized_weights_are_close_and_small(tmp_path: Path, bits: int, tolerance: float, ratio: float) -> None:
    nodes = [
        node("Conv", "x c", "h", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("Flatten", "h", "f"),
        node("Gemm", "f w b", "g", transB=1),
        node("MatMul", "g v"),
    ]
    weights = {
        "c": normal(64, 64, 3, 3) / 24, "w": normal(128, 1024) / 32, "b": normal(128), "v": normal(128, 10) / 11,
    }  # fmt: skip
    source = onnx_artifact(tmp_path / "onnx", nodes, weights, ("batch", 64, 4, 4))
    target, details = compile_mlx(source, tmp_path / "mlx", bits=bits)
    assert details == {"quantized": 2, "stored_quantized": 1, "left_in_float": []}
    array = normal(4, 64, 4, 4)
    wanted, got = (runtimes.load(artifact).run({"x": array})["y"] for artifact in (source, target))
    assert np.abs(got - wanted).max() < tolerance * np.abs(wanted).max()
    assert target.manifest.size_bytes < ratio * source.manifest.size_bytes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_gives_float32_outputs(tmp_path: Path, dtype: str) -> None:
    source = onnx_artifact(tmp_path / "onnx", [node("MatMul", "x w")], {"w": normal(6, 5)}, ("batch", 6))
    target, _ = compile_mlx(source, tmp_path / "mlx", dtype=dtype)
    array = normal(2, 6)
    got = runtimes.load(target).run({"x": array})["y"]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, runtimes.load(source).run({"x": array})["y"], rtol=0.05, atol=0.05)


def test_process_whose_threads_ran_it_ends_in_order(tmp_path: Path) -> None:
    """As a service runs it: loaded in one thread, run in another, both left before the process ends."""
    import subprocess
    import sys

    artifact = onnx_artifact(
        tmp_path / "onnx", [node("MatMul", "x w")], {"w": normal(4, 3)}, ("batch", 4)
    )  # fmt: skip
    built, _ = compile_mlx(artifact, tmp_path / "mlx")
    code = (
        "import sys, numpy as np\nfrom concurrent.futures import ThreadPoolExecutor\nfrom pathlib import Path\n"
        "from hone import runtimes\nfrom hone.artifact import Artifact\n"
        "def load():\n"
        "    runtime = runtimes.load(Artifact.open(Path(sys.argv[1])), 1)\n"
        "    runtime.run({'x': np.ones((1, 4), np.float32)})\n"
        "    runtime.leave_thread()\n"
        "    return runtime\n"
        "with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:\n"
        "    runtime = first.submit(load).result()\n"
        "    print(second.submit(runtime.run, {'x': np.ones((2, 4), np.float32)}).result()['y'].shape)\n"
        "    second.submit(runtime.leave_thread).result()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(built.path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "(2, 3)\n"), done.stderr
