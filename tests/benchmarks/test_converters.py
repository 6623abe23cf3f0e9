"""The converters' benchmark: what it says of a report, and other tools beside it."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from hone import runtimes
from hone.artifact import Latency, Measurements, Quality
from hone.benchmarks.converters.__main__ import EXAMPLES, ROOT, Comparison, main
from hone.benchmarks.converters.arithmetic import macs_per_row, note_shares, peak
from hone.benchmarks.converters.entries import summarize
from hone.benchmarks.converters.report import draw, to_markdown
from hone.benchmarks.converters.tools import BY_ITSELF, Given, Made, Tool, made_by, tools
from hone.benchmarks.overview import findings
from hone.converters.proof.evaluate import resolve_threads
from hone.converters.proof.subject import Subject
from hone.converters.report.records import Percentiles, Report, VariantReport
from hone.errors import ArtifactError
from hone.recipe import Budget, Conditions
from hone.runtimes.torch.runtime import load_program
from tests.later import later
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench, cosine
from tests.sources import export, ingest, run, write_recipe

ensemble, skops = later("sklearn.ensemble"), later("skops.io")


def variant(name: str, rate: float, *, baseline: bool = False, drop: float = 0.0, size: float = 1.0) -> VariantReport:
    def table(value: float) -> dict[str, Percentiles]:
        return {
            threads: Percentiles(
                p50=1, p50_low=0.8, p50_high=1.25, p95=1, p99=1, mean=1, rows_per_s=value * factor, calls=10
            )
            for threads, factor in (("1", 1.0), ("all", 2.0))
        }

    return VariantReport(
        name=name, status="built", baseline=baseline, eligible=True, quality=0.8 - drop, quality_drop=drop,
        rows_per_s_batch1=rate, speedup=None if baseline else rate / 100, size_mb=size,
        latency_ms={"1": table(rate), "8": table(rate * 4)}, loss=drop, loss_upper=drop + 0.001,
        loss_allowed=0.01,
    )  # fmt: skip


def report() -> Report:
    return Report(
        name="small", run="r", created="c", recipe="r.yaml", recipe_sha256="0", source="torch", metric="cosine",
        higher_is_better=True, objective="latency", budget=Budget(at=Conditions(batch=1, threads=1)),
        evaluation_rows=8, host={}, tools={}, seconds=12.5, winner="onnx-int8",
        variants=[
            variant("torch", 100, baseline=True, size=4.0),
            variant("onnx-fp32", 200, size=4.0),
            variant("onnx-int8", 500, drop=0.004),
            VariantReport(name="tensorrt-fp16", status="skipped", reason="no NVIDIA GPU"),
        ],
    )  # fmt: skip


def test_entry_holds_the_chosen_variant_and_its_ratios(tmp_path: Path) -> None:
    entry = summarize("small", report(), 30)
    assert entry["chosen"]["variant"] == "onnx-int8"
    assert entry["chosen"]["speedup_vs_source"] == 5.0
    assert entry["chosen"]["quality_loss_pct"] == pytest.approx(0.5)
    assert entry["chosen"]["size_ratio"] == 0.25
    assert entry["chosen"]["speedup_vs_torch"] == {"1": 5.0, "8": 5.0}
    assert entry["chosen"]["speedup_vs_onnx_fp32"] == {"1": 2.5, "8": 2.5}
    assert entry["chosen"]["cosine_mean"] == pytest.approx(0.796)
    assert entry["chosen"]["rows_per_s_ci"] == {"1": [800, 1250], "8": [6400, 10000]}
    assert (entry["chosen"]["loss"], entry["chosen"]["loss_upper"]) == (0.004, 0.005)
    assert (entry["chosen"]["size_mb"], entry["chosen"]["minutes"], entry["minutes"]) == (1.0, 0.0, 0.21)
    assert [item["variant"] for item in entry["variants"]] == ["onnx-fp32", "onnx-int8", "tensorrt-fp16"]
    entry["peers"] = [{"name": "other", "error": "it broke"}]
    entry["mmacs_per_row"] = 2.0
    note_shares(entry, {"float32": 10.0, "int8": 40.0})
    whole = {"machine": "m", "cpu_features": [], "peak_gops": {"int8": 40.0}, "models": [entry], "not_run": []}
    text = to_markdown(whole)
    assert "| onnx-int8 (chosen) | 5.00x | 0.50 % | 0.25 | 1: 1,000, 8: 4,000 | 40% of int8 |" in text
    assert "no NVIDIA GPU" in text and "it broke" in text
    assert "| small: onnx-int8 | none | none |" in text
    rated = {"rows_per_s": {"1": 800.0}, "quality_loss_pct": 0.4, "speedup_vs_source": 4.0, "size_ratio": 0.25}
    timed = {**rated, "chosen_is_faster": {"1": [1.25, 1.1, 1.4]}}
    slower = {"name": "slower", **timed, "rows_per_s": {"1": 700.0}, "loss_upper": 0.005}
    closest = [slower, {"name": "close", **timed, "loss_upper": 0.005}, {"name": "lossy", **timed, "loss_upper": 0.1}]
    closest.append({"name": "unknown", **timed, "rows_per_s": {"1": 900.0}, "loss_upper": None})
    text = to_markdown({**whole, "models": [{**entry, "peers": closest}]})
    assert "| small: onnx-int8 | 1.25 (1.10 to 1.40) *close* | none |" in text
    draw(whole, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    found = findings.converters({**whole, "peers": [{"model": "small", **peer} for peer in entry["peers"]]})
    assert found.result.startswith(
        "1 of 1 examples have a variant within the budget: 5.0 to 5.0 times the source's speed"
    )
    assert found.left_out == ["other on small: it broke"]
    assert found.tables[0].rows[1][:4] == ["onnx-int8 (chosen)", "5.00", "1.000 (0.800 to 1.250)", "0.50"]


def given(bench: Bench) -> Given:
    plain = bench.artifact(perceptron())
    return Given(plain, plain, bench.recipe, bench.rows)


TORCH = ("torch-compile", "aot-inductor", "inc")
GRAPHS = [tool.name for tool in tools(Path()) if tool.name not in (*TORCH, "skl2onnx")]


# Those that aren't here are installed into environments of their own first.
@pytest.mark.parametrize(
    "name", [name if "onnxruntime" in name else pytest.param(name, marks=pytest.mark.slow) for name in GRAPHS]
)
def test_other_tools_quantize_the_same_graph(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    start = given(bench)
    (tool,) = [tool for tool in tools(tmp_path_factory.getbasetemp() / "peers") if tool.name == name]
    made, facts = made_by(tool, start, tmp_path)
    assert made is not None, facts
    assert facts["lines"] > 3 and facts["minutes"] == round(facts["seconds"] / 60, 2)
    assert made.artifact.manifest.precision == "int8"
    assert cosine(bench.outputs(made.artifact)["y"], bench.outputs(start.plain)["y"]) > 0.99


def test_a_tool_that_fails_or_can_not_be_installed_is_a_result(tmp_path: Path) -> None:
    start = given(Bench(tmp_path, perceptron_signature(), perceptron_rows()))

    def fails(*_: object) -> Made:
        raise ValueError("no such operator\nand more")

    broken = Tool("broken", "broken", "dynamic", lambda: None, fails)
    assert made_by(broken, start, tmp_path) == (None, {"error": "no such operator"})
    missing = Tool("missing", "missing", "dynamic", fails, lambda *_: Made("model.onnx", 1))
    assert made_by(missing, start, tmp_path) == (None, {"error": "no such operator"})


@pytest.mark.parametrize(("name", "framework"), [*((name, "torch") for name in TORCH), ("skl2onnx", "scikit-learn")])
def test_a_tool_for_a_framework_says_that_a_graph_is_none(tmp_path: Path, name: str, framework: str) -> None:
    start = given(Bench(tmp_path, perceptron_signature(), perceptron_rows()))
    (tool,) = [tool for tool in tools(tmp_path / "peers") if tool.name == name]
    ready = dataclasses.replace(tool, prepare=lambda: None)
    said = f"it takes models of {framework}, and this one is of onnx"
    assert made_by(ready, start, tmp_path) == (None, {"error": said})


def test_skl2onnx_converts_the_estimator_itself(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    skops.dump(ensemble.IsolationForest(n_estimators=3, random_state=0).fit(rows), tmp_path / "model.skops")
    work = ingest(write_recipe(tmp_path, {"file": "model.skops"}, {"features": rows}), tmp_path / "source")
    plain = export(work, tmp_path / "onnx")
    (tool,) = [tool for tool in tools(tmp_path / "peers") if tool.name == "skl2onnx"]
    made, _ = made_by(tool, Given(plain, work.artifact, work.loaded.path, {"features": rows}), tmp_path)
    assert made is not None
    answers, ours = (run(artifact, {"features": rows}) for artifact in (made.artifact, plain))
    np.testing.assert_array_equal(answers["label"], ours["label"])
    assert len(onnx.load(made.artifact.entry).graph.node) > len(onnx.load(plain.entry).graph.node)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_source_of_torch_is_compiled_ahead_of_time(tmp_path: Path) -> None:
    (tmp_path / "networks.py").write_text(
        "import torch\n\n\ndef build():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()\n"
    )
    rows = {"x": np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32)}
    signature = {"inputs": {"x": {"dtype": "float32", "shape": ["batch", 4]}}, "outputs": ["y"]}
    source = {"loader": "networks:build"}
    loaded = write_recipe(tmp_path, source, rows, signature=signature, calibration="rows.npz")
    work = ingest(loaded, tmp_path / "source")
    (tool,) = [tool for tool in tools(tmp_path / "peers") if tool.name == "aot-inductor"]
    made, facts = made_by(tool, Given(work.artifact, work.artifact, loaded.path, rows), tmp_path)
    assert made is not None, facts
    assert "is a torch program" in runtimes.runtime_class("torch").code_in(made.artifact)
    for count in (10, 3):
        few = {"x": rows["x"][:count]}
        np.testing.assert_allclose(run(made.artifact, few)["y"], run(work.artifact, few)["y"], atol=0.05)
    with pytest.raises(ArtifactError, match="which could run code"):
        load_program(made.artifact.entry)


def test_another_tool_is_ruled_as_a_variant_and_compared_with_the_chosen_one_in_turns(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(), quality={"metric": "cosine"})
    plain = bench.artifact(perceptron())
    outputs = bench.outputs(plain)

    def subject(name: str, rounds: tuple[float, ...], answers: np.ndarray) -> Subject:
        p50 = float(np.median(rounds))
        timed = Latency(
            batch=1, threads=resolve_threads("all"), p50=p50, p50_low=min(rounds), p50_high=max(rounds), p95=p50,
            p99=p50, mean=p50, rows_per_s=1000 / p50, calls=10, rounds=rounds,
        )  # fmt: skip
        quality = Quality(
            metric="cosine", value=0.99, source=1.0, drop=0.01, max_difference=0.1, mean_difference=0.1, rows=64
        )
        found = Measurements(quality=quality, latency=(timed,), peak_rss_mb=1.0, load_ms=1.0, size_mb=2.0, host={})
        return Subject(name, plain, measurements=found, _outputs={"y": answers})

    source = subject("onnx", (1.0,) * 8, outputs["y"])
    chosen = subject("onnx-int8", (1.0, 1.2, 1.0, 1.1, 1.0, 1.0, 1.0, 1.0), outputs["y"])
    other = subject("other", (1.5, 1.8, 1.5, 1.65, 1.5, 1.5, 1.5, 1.5), outputs["y"] * 0.9 + 0.1)
    beside = Comparison(bench.recipe, [], variants=[source, chosen], subjects=[other])
    beside.facts = {"other": {"tool": "other", "minutes": 0.5}, "third": {"error": "it takes trees"}}
    found, failed = beside.entries(report())
    assert failed == {"name": "third", "error": "it takes trees"}
    assert (found["name"], found["minutes"], found["size_mb"]) == ("other", 0.5, 2.0)
    assert found["rows_per_s_ci"] == {"1": [pytest.approx(555.6, 0.01), pytest.approx(666.7, 0.01)]}
    assert found["chosen_is_faster"] == {"1": [1.5, 1.5, 1.5]}
    assert 0 < found["loss"] < found["loss_upper"]
    strict = report()
    strict.variants[2] = strict.variants[2].model_copy(update={"level": 0.999})
    assert beside.entries(strict)[0]["loss_upper"] > found["loss_upper"], "at the level of the winner's bound"


def test_unknown_peer_is_named() -> None:
    said = CliRunner().invoke(main, ["--only", "digits", "--peer", "nncv"])
    assert (said.exit_code, "no peer 'nncv'; did you mean 'nncf'?" in said.output) == (2, True)


def test_peak_is_measured_for_both_kinds_of_arithmetic() -> None:
    found = peak(64)
    assert found.keys() == {"float32", "int8"} and min(found.values()) > 0


def test_work_of_a_row_is_counted_from_shapes(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    assert macs_per_row(bench.artifact(perceptron()), bench.recipe) == 32 * 64 + 64 * 64 + 64 * 8


def test_a_graph_without_products_has_no_work_to_count(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 32]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert macs_per_row(bench.artifact(model), bench.recipe) == 0


def test_every_example_has_its_recipe() -> None:
    for example in EXAMPLES:
        assert (ROOT / example.recipe).is_file()
        assert set(example.modes) <= {tool.mode for tool in tools(Path())} - {BY_ITSELF}
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "examples").glob("*/*.yaml")}
    # The loop's is optimized for as short as it may be: its example is what comes after.
    # Code has no graph that other tools could be given.
    left_out = {"examples/loop/recipe.yaml", "examples/visits/recipe.yaml"}
    assert recipes - left_out == {example.recipe for example in EXAMPLES}
