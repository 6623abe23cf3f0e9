from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from hone import runtimes
from hone.artifact import Artifact
from hone.errors import ArtifactError, PassError
from hone.hardware import cpu_features
from hone.processes import output_of
from hone.runtimes.openvino import BFLOAT16_FEATURES, OpenVinoRuntime
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench, cosine

pytest.importorskip("openvino")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, perceptron_signature(), perceptron_rows())


def test_converted_graph_answers_as_its_source(bench: Bench) -> None:
    source = bench.artifact(perceptron())
    made = bench.run("openvino", source)
    assert (made.runtime, made.entry.name) == ("openvino", "model.xml")
    np.testing.assert_allclose(bench.outputs(made)["y"], bench.outputs(source)["y"], rtol=1e-4, atol=1e-5)
    one = runtimes.load(made, 1).run({"x": bench.rows["x"][:1]})["y"]
    np.testing.assert_allclose(one, bench.outputs(source)["y"][:1], rtol=1e-4, atol=1e-5)


def test_answers_are_not_overwritten_by_the_next_one(bench: Bench) -> None:
    runtime = runtimes.load(bench.run("openvino", bench.artifact(perceptron())), 1)
    first = runtime.run({"x": bench.rows["x"][:4]})["y"]
    kept = first.copy()
    runtime.run({"x": bench.rows["x"][4:8]})
    np.testing.assert_array_equal(first, kept)


def test_quantized_graph_is_converted(bench: Bench) -> None:
    source = bench.artifact(perceptron())
    made = bench.run("openvino", bench.run("quantize_static", source))
    assert made.manifest.precision == "int8"
    assert cosine(bench.outputs(made)["y"], bench.outputs(source)["y"]) > 0.995


def test_bfloat16_is_refused_without_the_processor_for_it(bench: Bench) -> None:
    source = bench.artifact(perceptron())
    if any(feature in cpu_features() for feature in BFLOAT16_FEATURES):
        made = bench.run("openvino", source, precision="bfloat16")
        assert made.manifest.requires == {"cpu_features": "avx512_bf16|amx_bf16"}
        assert cosine(bench.outputs(made)["y"], bench.outputs(source)["y"]) > 0.999
    else:
        with pytest.raises(PassError, match="this processor has no bfloat16"):
            bench.run("openvino", source, precision="bfloat16")


def test_host_without_the_features_is_told(bench: Bench) -> None:
    made = bench.run("openvino", bench.artifact(perceptron()))
    needy = made.with_manifest(requires={"cpu_features": "no_such_feature"})
    assert OpenVinoRuntime.check_host(needy) == "it needs a processor with no_such_feature"
    assert OpenVinoRuntime.check_host(made) == ""


def test_nothing_is_reported_to_its_makers() -> None:
    code = (
        "import sys; import hone.runtimes.openvino; import openvino; "
        "print([name for name in sys.modules if name.startswith('openvino_telemetry.')], "
        "openvino.tools.ovc.telemetry_utils.tm.__name__)"
    )
    said = output_of([sys.executable, "-c", code], "python")
    assert said.split() == ["[]", "openvino.tools.ovc.telemetry_stub"]


SIGNALED = """
import signal, sys
from pathlib import Path
from hone import runtimes
from hone.artifact import Artifact
signal.signal(signal.SIGTERM, lambda *_: print("told"))
first, second = (runtimes.load(Artifact.open(Path(sys.argv[1])), 1) for _ in range(2))
del first, second  # the first goes first
signal.raise_signal(signal.SIGTERM)
"""


def test_signals_reach_a_process_that_has_loaded_and_left_models(bench: Bench) -> None:
    """As a server's worker does at a swap, before it is told to stop."""
    made = bench.run("openvino", bench.artifact(perceptron()))
    assert output_of([sys.executable, "-c", SIGNALED, made.path], "python").strip() == "told"


def test_broken_file_is_named(bench: Bench) -> None:
    made = bench.run("openvino", bench.artifact(perceptron()))
    made.entry.write_text("<net>")
    with pytest.raises(ArtifactError, match=r"model\.xml: OpenVINO can't load it"):
        runtimes.load(Artifact(made.path, made.manifest), 1)


@pytest.mark.parametrize("rows", [1, 3])
def test_a_model_for_a_number_of_rows_runs_in_parts(bench: Bench, tmp_path: Path, rows: int) -> None:
    model = perceptron()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = rows
    source = bench.artifact(model)
    made = bench.run("openvino", source)
    np.testing.assert_allclose(bench.outputs(made)["y"], bench.outputs(source)["y"], rtol=1e-4, atol=1e-5)
    trace = runtimes.load(made, 1).profile({"x": bench.rows["x"][:7]}, 3, tmp_path)
    assert len(trace.run_seconds) == 3 and trace.inside_seconds > 0
