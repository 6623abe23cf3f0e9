from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from hone.converters.graph.quantized_graph import heavy_nodes
from hone.errors import PassError
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench, cosine, details

COSINE = {"metric": "cosine"}


@pytest.mark.parametrize(
    ("model", "name"),
    [({}, "second"), ({"gemm": True}, "second"), ({"named": False}, "node_second_out")],
    ids=["plain", "gemm", "unnamed"],
)
def test_the_layer_that_int8_hurts_stays_in_float(tmp_path: Path, model: dict[str, bool], name: str) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(), quality=COSINE, budget={"quality_drop": 0.02})
    source = bench.artifact(perceptron(delicate=True, **model))
    plain = bench.run("quantize_dynamic", source)
    wanted = bench.outputs(source)["y"]
    assert not cosine(bench.outputs(plain)["y"], wanted) >= 0.9  # of rows that came to nothing it is no number
    made = bench.run("quantize_mixed", source)
    facts = details(made)
    assert list(facts["kept_in_float"]) == facts["left_in_float"] == [name]
    assert facts["quantized"] == 2 and facts["layers"] == 3
    assert facts["loss"] <= facts["limit"] == 0.02
    assert cosine(bench.outputs(made)["y"], wanted) > 0.98
    assert sorted(path.name for path in made.path.iterdir()) == ["artifact.json", "example.json", "model.onnx"]


@pytest.mark.parametrize("by", ["quantize_dynamic", "quantize_weights"])
def test_layers_are_ranked_by_what_each_alone_does_to_the_outputs(tmp_path: Path, by: str) -> None:
    rows = {name: array[:16] for name, array in perceptron_rows().items()}  # one batch: its range is each one's
    bench = Bench(tmp_path, perceptron_signature(), rows, quality={"metric": "rmse"}, budget={"quality_drop": 1.0})
    source = bench.artifact(perceptron(delicate=True))
    layers = heavy_nodes(onnx.load(source.entry))
    wanted = bench.outputs(source)["y"].astype(float)

    def outputs(exclude: list[str]) -> np.ndarray:
        return bench.outputs(bench.run(by, source, exclude=exclude))["y"].astype(float)

    alone = {layer: outputs([name for name in layers if name != layer]) for layer in layers}
    powers = {layer: ((got - wanted) ** 2).sum() / (wanted**2).sum() for layer, got in alone.items()}
    worst = sorted(powers, key=lambda layer: -powers[layer])[:2]
    one, two = (float(np.sqrt(((outputs(worst[:count]) - wanted) ** 2).mean())) for count in (1, 2))
    made = bench.run("quantize_mixed", source, by=by, max_loss=(one + two) / 2, max_float_share=1.0)
    kept = details(made)["kept_in_float"]
    assert list(kept) == worst
    assert kept == pytest.approx({layer: powers[layer] for layer in worst}, rel=0.1)


def test_static_quantization_leaves_the_delicate_layer_out(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(), quality=COSINE)
    source = bench.artifact(perceptron(delicate=True))
    made = bench.run("quantize_mixed", source, by="quantize_static", max_loss=0.25)  # 0.35 with all, 0.24 without it
    assert list(details(made)["kept_in_float"]) == ["second"]


def test_nothing_is_left_out_when_the_loss_fits_at_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(), budget={"quality_drop": 0.05})
    made = bench.run("quantize_mixed", bench.artifact(perceptron()), by="quantize_weights")
    assert details(made)["kept_in_float"] == {} and details(made)["quantized"] == 3
    assert details(made)["by"] == "quantize_weights"


def test_loss_that_doesnt_fit_is_an_error_that_says_how_far_it_got(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(), quality=COSINE)
    source = bench.artifact(perceptron(delicate=True))
    with pytest.raises(PassError, match=r"1 of 3 layers in float the loss \(1 - cosine.*is still .* over 1e-09"):
        bench.run("quantize_mixed", source, max_loss=1e-9, max_float_share=0.4)


def test_options_of_the_inner_pass_are_checked(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    with pytest.raises(PassError, match=r"options\.bits of quantize_weights"):
        bench.run("quantize_mixed", bench.artifact(perceptron()), by="quantize_weights", options={"bits": 3})


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("rmse", "rmse against the float model"),
        ("accuracy", "share of rows whose class changes"),
        ("likeness", "1 - likeness to the float model"),
    ],
)
def test_loss_is_in_the_unit_of_the_metric(tmp_path: Path, metric: str, words: str) -> None:
    rows = perceptron_rows()
    bench = Bench(tmp_path, perceptron_signature(), rows, quality={"metric": metric}, budget={"quality_drop": 0.5})
    made = bench.run("quantize_mixed", bench.artifact(perceptron()))
    assert details(made)["loss_is"] == words and details(made)["limit"] == 0.5
