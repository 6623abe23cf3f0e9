from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hone.describe.layers import compare_layers, layer_weights
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.models.tables import embedding_bag
from tests.passes import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, perceptron_signature(), perceptron_rows())


@pytest.mark.parametrize(
    ("name", "options", "bits", "least"),
    [
        ("quantize_dynamic", {}, 8, 0.999),
        ("quantize_static", {}, 8, 0.999),
        ("quantize_weights", {}, 8, 0.999),
        ("quantize_weights", {"symmetric": False}, 8, 0.999),
        ("quantize_weights", {"bits": 4, "block_size": 16}, 4, 0.99),
        ("quantize_weights", {"bits": 4, "symmetric": False}, 4, 0.99),
    ],
)
def test_quantized_layers_are_found_dequantized_and_compared(
    bench: Bench, name: str, options: dict[str, object], bits: int, least: float
) -> None:
    source = bench.artifact(perceptron())
    found = compare_layers(source, bench.run(name, source, **options))
    assert [difference.name for difference in found] == ["first.weight", "second.weight", "third.weight"]
    for difference in found:
        assert difference.first is not None and difference.second is not None and difference.cosine is not None
        assert (difference.first.bits, difference.second.bits) == (32, bits)
        assert least < difference.cosine < 1
        # Not only the direction: the values themselves.
        original, dequantized = difference.first.values, difference.second.values
        gap = min(
            float(np.abs(original - reading).max())
            for reading in (dequantized, dequantized.T)
            if reading.shape == original.shape
        )
        assert gap < 0.15 * np.abs(original).max()


def test_sparsity_and_a_changed_layer(bench: Bench, tmp_path: Path) -> None:
    model = perceptron()
    source = bench.artifact(model)
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "second.weight")
    from onnx import numpy_helper

    values = numpy_helper.to_array(weight).copy()
    values[:32] = 0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    first, second, third = compare_layers(source, bench.artifact(model))
    assert first.cosine == pytest.approx(1) and third.cosine == pytest.approx(1)
    assert second.cosine is not None and second.cosine < 0.9
    assert second.second is not None and second.second.sparsity == 0.5


def test_layers_of_one_artifact_only_are_listed(bench: Bench) -> None:
    source = bench.artifact(perceptron())
    found = compare_layers(source, bench.artifact(perceptron(normalized=True)))
    extra = [difference.name for difference in found if difference.first is None]
    assert extra == [f"{name}.{part}" for name in ("first", "second", "third") for part in ("scale", "shift")]


def test_safetensors_are_read(tmp_path: Path, bench: Bench) -> None:
    from safetensors.numpy import save_file

    from hone.artifact import Manifest, seal

    folder = tmp_path / "torch"
    folder.mkdir()
    save_file({"w": np.ones((4, 8), np.float32), "b": np.ones(2, np.float32)}, folder / "weights.safetensors")
    artifact = seal(
        folder,
        Manifest(
            name="n", variant="torch", runtime="torch", precision="fp32", entry="weights.safetensors",
            signature=perceptron_signature(),
        ),
    )  # fmt: skip
    assert [(layer.name, layer.bits, layer.sparsity) for layer in layer_weights(artifact)] == [("w", 32, 0.0)]


def test_a_table_of_four_bits_is_unpacked(tmp_path: Path) -> None:
    model, signature = embedding_bag()
    bench = Bench(tmp_path, signature, {"ids": np.random.default_rng(1).integers(0, 100, (64, 3))})
    source = bench.artifact(model)
    found = {each.name: each for each in compare_layers(source, bench.run("quantize_weights", source, table_bits=4))}
    assert found.keys() == {"table", "w"}
    table = found["table"]
    assert table.second is not None and table.second.bits == 4
    assert table.cosine is not None and 0.99 < table.cosine < 1
