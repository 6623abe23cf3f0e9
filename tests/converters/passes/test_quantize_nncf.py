from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from hone.artifact import Artifact
from hone.converters.passes.quantize.quantize_nncf import ALPHAS, Options
from hone.converters.run.plan import make_plan
from hone.converters.signal_stack import signal_stack
from hone.errors import PassError, RecipeError
from hone.recipe import load_recipe
from hone.runtimes.onnx.saturation import KEY, host_saturates
from hone.runtimes.openvino import OpenVinoRuntime
from hone.signature import Signature, TensorSpec
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench, cosine, details

pytest.importorskip("openvino")
pytest.importorskip("nncf")

ATTENTION = """
q = MatMul (x, wq) k = MatMul (x, wk) v = MatMul (x, wv) t = Transpose <perm = [0, 2, 1]> (k)
s = MatMul (q, t) p = Softmax <axis = -1> (s) m = MatMul (p, v) y = MatMul (m, wo)
"""
CONVOLUTION = "c = Conv <pads = [1, 1, 1, 1]> (x, w1) r = Relu (c) y = Conv (r, w2)"
LAYERS = ["first", "second", "y"]
"""What OpenVINO calls the perceptron's: a node that gives an output has the output's name."""


def graph(shape: str, body: str, out: str, weights: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Return x -> body -> y with random weights."""
    generator = np.random.default_rng(0)
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]> g (float[batch, {shape}] x) => (float[batch, {out}] y) {{ {body} }}'
    )
    for name, size in weights.items():
        values = generator.normal(0, np.prod(size[1:]) ** -0.5, size).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


def bench_of(folder: Path, *shape: int) -> Bench:
    """Return a bench for models from x to y of the same shape."""
    axes = ("batch", *shape)
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=axes),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=axes),),
    )
    return Bench(folder, signature, {"x": np.random.default_rng(1).normal(size=(16, *shape)).astype(np.float32)})


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("nncf")
    return Bench(folder, perceptron_signature(), perceptron_rows(), quality={"metric": "cosine"})


@pytest.fixture(scope="module")
def plain(bench: Bench) -> Artifact:
    return bench.run("openvino", bench.artifact(perceptron()))


def test_every_layer_is_int8_and_answers_stay_near(bench: Bench, plain: Artifact) -> None:
    made = bench.run("quantize_nncf", plain, rows=32)
    facts = details(made)
    assert (facts["by_operator"], facts["left_in_float"]) == ({"MatMul": 3}, [])
    assert (facts["calibration_rows"], facts["model_type"]) == (32, "none")
    assert (made.runtime, made.manifest.precision) == ("openvino", "int8")
    assert cosine(bench.outputs(made)["y"], bench.outputs(plain)["y"]) > 0.99
    weights = [artifact.entry.with_suffix(".bin").stat().st_size for artifact in (made, plain)]
    assert weights[0] < weights[1] / 3


def test_attention_is_found_and_quantized_as_a_transformer(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, 7, 24)
    model = graph("7, 24", ATTENTION, "7, 24", dict.fromkeys(("wq", "wk", "wv", "wo"), (24, 24)))
    plain = bench.run("openvino", bench.artifact(model))
    made = bench.run("quantize_nncf", plain, rows=8, bias_correction="none")
    facts = details(made)
    assert facts["model_type"] == "transformer"
    tried = facts["int8_error_by_alpha"]
    assert list(tried) == [f"{alpha:g}" for alpha in ALPHAS]
    assert tried[f"{facts['smooth_quant_alpha']:g}"] == min(tried.values())
    # OpenVINO computes query, key and value by one product; then come scores, their sums and the last one.
    assert facts["by_operator"]["MatMul"] >= 4 and facts["left_in_float"] == []
    wanted, got = (bench.outputs(one)["y"].reshape(16, -1) for one in (plain, made))
    assert cosine(got, wanted) > 0.99


def test_convolutions_are_quantized(tmp_path: Path) -> None:
    bench = bench_of(tmp_path, 2, 8, 8)
    model = graph("2, 8, 8", CONVOLUTION, "2, 8, 8", {"w1": (4, 2, 3, 3), "w2": (2, 4, 1, 1)})
    plain = bench.run("openvino", bench.artifact(model))
    made = bench.run("quantize_nncf", plain)
    assert (details(made)["by_operator"], details(made)["model_type"]) == ({"Conv": 2}, "none")
    wanted, got = (bench.outputs(one)["y"].reshape(16, -1) for one in (plain, made))
    assert cosine(got, wanted) > 0.99


def test_excluded_layer_stays_in_float_and_all_of_them_are_an_error(bench: Bench, plain: Artifact) -> None:
    facts = details(bench.run("quantize_nncf", plain, rows=8, exclude=["second"], smooth_quant_alpha="none"))
    assert (facts["quantized"], facts["left_in_float"]) == (2, ["second"])
    with pytest.raises(PassError, match="nothing of the model could be quantized"):
        bench.run("quantize_nncf", plain, rows=8, exclude_types=["MatMul"])


def test_products_that_narrow_may_stay_in_float(bench: Bench, plain: Artifact) -> None:
    facts = details(bench.run("quantize_nncf", plain, rows=8, bias_correction="none", contractions="float"))
    assert (facts["quantized"], facts["left_in_float"]) == (2, ["y"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ["secnd"]}, "exclude: the model has no 'secnd'; did you mean 'second'?"),
        ({"exclude": ["/encoder/7"]}, "exclude: the model has no '/encoder/7'; hone profile lists the nodes"),
        ({"exclude_types": ["Matmul"]}, "exclude_types: the model has no 'Matmul'; did you mean 'MatMul'?"),
    ],
)
def test_name_that_the_model_has_not_got_is_told(
    bench: Bench, plain: Artifact, options: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(PassError) as caught:
        bench.run("quantize_nncf", plain, **options)
    assert str(caught.value).startswith(f"quantize_nncf: {message}")


def test_accuracy_control_puts_layers_back_until_the_loss_fits(bench: Bench, plain: Artifact) -> None:
    whole = bench.run("quantize_nncf", plain, rows=16)
    rows = {"x": bench.rows["x"][:16]}
    wanted = OpenVinoRuntime(plain, 1).run(rows)["y"]
    loss = 1 - cosine(OpenVinoRuntime(whole, 1).run(rows)["y"], wanted)
    stack = signal_stack()
    facts = details(bench.run("quantize_nncf", plain, rows=16, max_drop=0.75 * loss))
    assert bytes(signal_stack() or b"") == bytes(stack or b"")  # else the next signal ends this process
    assert facts["loss_is"] == "1 - cosine to the float model"
    assert facts["loss"] <= facts["limit"] == 0.75 * loss
    assert 0 < len(facts["left_in_float"]) < 3 and set(facts["left_in_float"]) < set(LAYERS)


def test_weights_of_seven_bits_need_no_instructions_for_int8(bench: Bench, plain: Artifact) -> None:
    options = {"rows": 8, "bias_correction": "none"}
    for seven, needs in ((False, True), (True, False), ("auto", not host_saturates())):
        made = bench.run("quantize_nncf", plain, **options, reduce_range=seven)
        assert (KEY in made.manifest.requires) == needs


def test_host_without_vector_instructions_for_int8_is_told(
    bench: Bench, plain: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    needy = plain.with_manifest(requires={KEY: "avx512_vnni"})
    monkeypatch.setattr("hone.runtimes.onnx.saturation.host", lambda: {"machine": "x86_64", "cpu_features": ["avx2"]})
    assert "saturate on a processor without avx512_vnni" in OpenVinoRuntime.check_host(needy)


def test_few_rows_show_no_range(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(3))
    plain = bench.run("openvino", bench.artifact(perceptron()))
    with pytest.raises(PassError, match=r"quantize_nncf: 3 calibration row\(s\) can't show the range of a value"):
        bench.run("quantize_nncf", plain)


def test_recipe_without_calibration_rows_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(), variants=["openvino-int8"], calibration=None)
    with pytest.raises(RecipeError, match="pass 'quantize_nncf' needs calibration rows"):
        make_plan(load_recipe(bench.recipe), "onnx")


def test_host_without_nncf_skips_the_variant_and_says_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "hone.converters.passes.quantize.quantize_nncf.find_spec", lambda name: None if name == "nncf" else found(name)
    )
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(), variants=["openvino-int8", "openvino-fp32"])
    skipped, kept = make_plan(load_recipe(bench.recipe), "onnx").variants
    assert skipped.unavailable is not None and kept.unavailable is None
    assert str(skipped.unavailable) == "nncf is not installed; pip install 'hone[openvino]'"
    assert Options().missing("openvino") is not None
