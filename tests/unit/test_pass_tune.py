from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.passes import tune
from tests.passes import Bench, details, perceptron, perceptron_rows, perceptron_signature


def test_measured_choice_keeps_the_graph_and_its_answers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    source = bench.artifact(perceptron(normalized=True))
    made = bench.run("tune", source, rounds=3)
    assert made.entry.read_bytes() == source.entry.read_bytes()
    assert set(details(made)["saved_by_each"]) == set(tune.SUSPECTS)
    np.testing.assert_allclose(bench.outputs(made)["y"], bench.outputs(source)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("together", "left_out"), [(0.8, ["GeluFusionL2"]), (0.99, [])])
def test_an_optimizer_is_left_out_when_that_pays_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: float, left_out: list[str]
) -> None:
    def timed(sessions: dict[str, object], *_: object) -> dict[str, float]:
        medians = dict.fromkeys(sessions, 1.0)
        medians.update(
            {name: value for name, value in (("GeluFusionL2", 0.8), ("chosen", together)) if name in sessions}
        )
        return medians

    monkeypatch.setattr(tune, "_time", timed)
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    made = bench.run("tune", bench.artifact(perceptron()))
    assert details(made)["left_out"] == left_out
    assert made.manifest.runtime_options.get("disabled_optimizers", []) == left_out
    assert bench.outputs(made)["y"].shape == (64, 8)
