"""Hone's converters on the examples, beside plain ONNX Runtime quantization: `make bench-converters`.

Each example's recipe is run as `hone optimize` runs it. What the other tools make of the same fp32 graph is measured in
the same interleaved rounds, on the same rows, by the same code, so every ratio is of one run.
"""

from __future__ import annotations

import inspect
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson

from hone.artifact import Artifact, Manifest, Measurements, seal
from hone.converters.proof.evaluate import Subject, resolve_threads
from hone.converters.report.records import Report, VariantReport
from hone.converters.run.optimize import Display, Request, optimize
from hone.converters.run.pipeline import Progress
from hone.errors import HoneError, one_line
from hone.files import atomic_write
from hone.hardware import cores, cpu_features, cpu_name
from hone.processes import output_of

from ..peers import HERE, OLIVE, environment

ROOT = Path(__file__).resolve().parents[2]
FP32 = "onnx-fp32"


@dataclass(frozen=True)
class Example:
    """A recipe of the examples.

    Attributes:
        name: in the report.
        recipe: beside the repository's root.
        peers: what else is made of its fp32 graph.
    """

    name: str
    recipe: str
    peers: tuple[str, ...] = ("onnxruntime-dynamic", "olive-dynamic")


EXAMPLES = (
    Example(
        "digits",
        "examples/digits/recipe.yaml",
        ("onnxruntime-dynamic", "onnxruntime-static", "olive-dynamic", "olive-static"),
    ),
    Example("digits-keras", "examples/digits/keras.yaml", ("onnxruntime-static", "olive-static")),
    Example("tabular", "examples/tabular/recipe.yaml", ()),
    Example("tabular-lightgbm", "examples/tabular/lightgbm.yaml", ()),
    Example("tabular-anomaly", "examples/tabular/anomaly.yaml", ()),
    Example("tabular-survey", "examples/tabular/survey.yaml", ()),
    Example("forecast-lstm", "examples/forecast/lstm.yaml"),
    Example("forecast-transformer", "examples/forecast/transformer.yaml"),
    Example("minilm", "examples/embeddings/recipe.yaml"),
)


Rows = dict[str, np.ndarray]


def onnxruntime_dynamic(graph: Path, file: Path, calibration: Rows, root: Path) -> int:
    """ONNX Runtime's quantization guide, 'dynamic quantization', as its example has it."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(graph, file, weight_type=QuantType.QInt8, per_channel=True)
    return len(inspect.getsource(onnxruntime_dynamic).splitlines())


def onnxruntime_static(graph: Path, file: Path, calibration: Rows, root: Path) -> int:
    """ONNX Runtime's quantization guide, 'static quantization': pre-process, then calibrate."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = file.with_suffix(".prepared.onnx")
    quant_pre_process(str(graph), str(prepared))

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            rows = len(next(iter(calibration.values())))
            self.batches = iter(
                [
                    {name: array[start : start + 16] for name, array in calibration.items()}
                    for start in range(0, rows, 16)
                ]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.batches, None)

    quantize_static(
        str(prepared),
        str(file),
        Reader(),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()
    return len(inspect.getsource(onnxruntime_static).splitlines())


def olive(mode: str, graph: Path, file: Path, calibration: Rows, root: Path) -> int:
    """Olive in an environment of its own; `benchmarks.peers.olive_peer` has its settings."""
    rows = file.with_suffix(".npz")
    np.savez(rows, allow_pickle=False, **calibration)
    python = environment(OLIVE, root)
    command: list[str | Path] = [python, HERE / OLIVE.script, mode, graph, rows, file]
    printed = output_of(command, "Olive", folder=file.parent)
    rows.unlink()
    shutil.rmtree(file.parent / ".olive-cache", ignore_errors=True)
    return int(orjson.loads(printed.strip().splitlines()[-1])["lines"])


PEERS: dict[str, Callable[[Path, Path, Rows, Path], int]] = {
    "olive-dynamic": partial(olive, "dynamic"),
    "olive-static": partial(olive, "static"),
    "onnxruntime-dynamic": onnxruntime_dynamic,
    "onnxruntime-static": onnxruntime_static,
}


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
@click.option("--example", "names", multiple=True, type=click.Choice([e.name for e in EXAMPLES]), help="Default: all.")
@click.option("--peers", "root", type=click.Path(path_type=Path), default=Path("out/peers"), show_default=True)
def main(out: Path, names: Sequence[str], root: Path) -> None:
    """Run the examples and write converters.json, converters.md and converters.png."""
    chosen = [example for example in EXAMPLES if not names or example.name in names]
    models, not_run = [], []
    for example in chosen:
        click.echo(f"{example.name}: {example.recipe}", err=True)
        try:
            models.append(run(example, root.resolve()))
        except HoneError as error:
            not_run.append({"name": example.name, "error": one_line(error)})
            click.echo(f"  not run: {one_line(error)}", err=True)
    peaks = peak()
    for model in models:
        shares(model, peaks)
    report: dict[str, Any] = {
        "schema": 1,
        "machine": f"{cpu_name()}, {cores()} cores",
        "cpu_features": cpu_features(),
        "peak_gops": peaks,
        "models": models,
        "peers": [{"model": model["name"], **peer} for model in models for peer in model["peers"]],
        "not_run": not_run,
    }
    atomic_write(out / "converters.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    text = to_markdown(report)
    atomic_write(out / "converters.md", text)
    draw(report, out / "converters.png")
    click.echo(text)


def run(example: Example, root: Path) -> dict[str, Any]:
    """Optimize one example with its peers beside it; `root` holds their environments."""
    peers: list[Subject] = []
    facts: dict[str, dict[str, Any]] = {}
    work: list[float] = []

    def beside(subjects: list[Subject], scratch: Path) -> list[Subject]:
        plain = next((subject for subject in subjects if subject.name == FP32), None)
        if plain is not None:
            work.append(round(macs_per_row(plain.artifact, ROOT / example.recipe) / 1e6, 3))
        for name in example.peers if plain is not None else ():
            assert plain is not None
            peers.extend(_peer(name, plain.artifact, ROOT / example.recipe, scratch, facts, root))
        return peers

    report = optimize(Request(ROOT / example.recipe, store=False), _quiet(), beside)
    entry = summarize(example.name, report, len((ROOT / example.recipe).read_text().splitlines()))
    entry["mmacs_per_row"] = work[0] if work else None
    entry["peers"] = [_peer_entry(subject, report, facts[subject.name]) for subject in peers] + [
        {"name": name, "error": fact["error"]} for name, fact in facts.items() if "error" in fact
    ]
    return entry


def macs_per_row(plain: Artifact, recipe: Path) -> float:
    """Return the multiplications of one evaluation row: those of MatMul, Gemm and Conv, from the shapes they meet."""
    import onnx
    import onnxruntime as ort

    from hone.data import load_dataset
    from hone.recipe import load_recipe

    loaded = load_recipe(recipe)
    rows = load_dataset(loaded, "evaluation", loaded.recipe.evaluation, plain.signature).head(1).inputs
    model = onnx.load(plain.entry)
    stored = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    heavy = [node for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "Conv")]
    if not heavy:
        return 0.0  # trees are compared, not multiplied
    watched = list(dict.fromkeys(name for node in heavy for name in (node.output[0], *node.input[:2])))
    watched = [name for name in watched if name not in stored and name not in rows]
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in watched if name not in known)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    shapes = {
        name: list(array.shape)
        for name, array in {**rows, **dict(zip(watched, session.run(watched, rows), strict=True))}.items()
    }
    shapes |= stored
    total = 0.0
    for node in heavy:
        output, weight = shapes[node.output[0]], shapes[node.input[1]]
        if node.op_type == "Conv":
            inner = np.prod(weight[1:])
        else:
            turned = node.op_type == "Gemm" and any(item.name == "transB" and item.i for item in node.attribute)
            inner = weight[1] if turned else weight[-2] if len(weight) > 1 else weight[0]
        total += float(np.prod(output)) * float(inner)
    return total


def peak(size: int = 1024) -> dict[str, float]:
    """Return what this machine reaches in one large matrix product on all cores, in 1e9 operations a second.

    A measured peak, the best of ten: what the processor's data sheet promises depends on a clock that nobody sees.
    """
    import onnxruntime as ort
    from onnx import TensorProto, helper

    kinds = {"float32": ("MatMul", TensorProto.FLOAT, np.float32), "int8": ("MatMulInteger", TensorProto.INT8, np.int8)}
    found = {}
    for name, (operator, element, dtype) in kinds.items():
        left = TensorProto.UINT8 if name == "int8" else element
        weights = np.random.default_rng(0).integers(-50, 50, (size, size)).astype(dtype)
        graph = helper.make_graph(
            [helper.make_node(operator, ["a", "b"], ["c"])],
            "peak",
            [helper.make_tensor_value_info("a", left, [size, size])],
            [helper.make_tensor_value_info("c", TensorProto.INT32 if name == "int8" else element, [size, size])],
            [helper.make_tensor("b", element, [size, size], weights.tobytes(), raw=True)],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        rows = {"a": np.ones((size, size), np.uint8 if name == "int8" else np.float32)}
        timings = []
        for _ in range(11):
            started = time.perf_counter()
            session.run(None, rows)
            timings.append(time.perf_counter() - started)
        found[name] = round(2 * size**3 / min(timings[1:]) / 1e9, 1)
    return found


def shares(model: dict[str, Any], peaks: dict[str, float]) -> None:
    """Note in each variant what share of the machine's peak it reaches at its best batch."""
    for entry in (*model["variants"], *model["peers"]):
        rates = entry.get("rows_per_s")
        if not rates or not model.get("mmacs_per_row"):
            continue
        arithmetic = "int8" if "int8" in (entry.get("variant") or entry["name"]) else "float32"
        arithmetic = "int8" if entry.get("name", "").startswith(("onnxruntime", "olive")) else arithmetic
        done = max(rates.values()) * model["mmacs_per_row"] * 2e-3
        entry["peak_share"] = {"of": arithmetic, "share": round(done / peaks[arithmetic], 4)}


def _quiet() -> Display:
    return Display(
        plan=lambda _: None,
        passes=Progress(on_start=lambda title: click.echo(f"  {title}", err=True)),
        proof=lambda *_: None,
        message=lambda _: None,
    )


def _peer(
    name: str, plain: Artifact, recipe: Path, scratch: Path, facts: dict[str, dict[str, Any]], root: Path
) -> list[Subject]:
    """Let another tool quantize the fp32 graph; a failure is noted, not raised."""
    from hone.converters.context import PassContext
    from hone.recipe import load_recipe

    folder = scratch / f"peer-{name}"
    folder.mkdir()
    loaded = load_recipe(recipe)
    calibration = PassContext(loaded, plain.signature, lambda _: None).calibration.inputs
    if name.startswith("olive"):
        environment(OLIVE, root)  # made before the clock runs
    started = time.monotonic()
    try:
        lines = PEERS[name](plain.entry, folder / "model.onnx", calibration, root)
    except Exception as error:  # noqa: BLE001 - whatever stops another tool is its result
        facts[name] = {"error": one_line(error)}
        return []
    facts[name] = {"seconds": round(time.monotonic() - started, 1), "lines": lines}
    manifest = Manifest(
        name=loaded.recipe.name, variant=name, runtime="onnx", precision="int8", entry="model.onnx",
        signature=plain.signature,
    )  # fmt: skip
    return [Subject(name, seal(folder, manifest))]


def _peer_entry(subject: Subject, report: Report, fact: dict[str, Any]) -> dict[str, Any]:
    if subject.failure or subject.measurements is None:
        return {"name": subject.name, "error": subject.failure}
    measured = subject.measurements
    threads = resolve_threads(report.budget.at.threads)
    latency = measured.at(report.budget.at.batch, threads)
    base = report.baseline
    fastest = report.judged(base, report.source_threads)
    return {
        "name": subject.name,
        **fact,
        "speedup_vs_source": _ratio(latency.rows_per_s if latency else None, fastest.rows_per_s),
        "quality": measured.quality.value,
        "quality_loss_pct": loss_pct(measured.quality.drop, base.quality),
        "size_ratio": _ratio(measured.size_mb, base.size_mb),
        "rows_per_s": _rates_of(measured, report),
    }


def _rates_of(measured: Measurements, report: Report) -> dict[str, float]:
    """Return rows/s by batch with all threads, as `_rates` does for a variant of the report."""
    threads = resolve_threads("all" if "all" in _threads(report.baseline) else report.budget.at.threads)
    return {str(latency.batch): latency.rows_per_s for latency in measured.latency if latency.threads == threads}


def _threads(variant: VariantReport) -> list[str]:
    return list(next(iter(variant.latency_ms.values()), {}))


def _rates(variant: VariantReport) -> dict[str, float]:
    """Return rows/s by batch with all threads (or what the recipe measured)."""
    key = "all" if "all" in _threads(variant) else next(iter(_threads(variant)), "")
    return {batch: table[key].rows_per_s for batch, table in variant.latency_ms.items() if key in table}


def summarize(name: str, report: Report, lines: int) -> dict[str, Any]:
    """Return one model's entry: the chosen variant, and every other beside it."""
    base = report.baseline
    entry: dict[str, Any] = {
        "name": name,
        "source": report.source,
        "metric": report.metric,
        "seconds": report.seconds,
        "recipe_lines": lines,
        "winner": report.winner,
        "variants": [_variant(variant, base) for variant in report.variants if not variant.baseline],
    }
    if report.winner is None:
        entry["chosen"] = None
        return entry
    winner = report.variant(report.winner)
    chosen = _variant(winner, base)
    by_batch = {batch: _ratio(rate, _rates(base).get(batch)) for batch, rate in _rates(winner).items()}
    if report.source == "torch":
        chosen["speedup_vs_torch"] = by_batch
    plain = next((variant for variant in report.variants if variant.name == FP32 and variant.latency_ms), None)
    if plain is not None:
        chosen["speedup_vs_onnx_fp32"] = {
            batch: _ratio(rate, _rates(plain).get(batch)) for batch, rate in _rates(winner).items()
        }
    if report.metric == "cosine":
        chosen["cosine_mean"] = winner.quality
    entry["chosen"] = chosen
    return entry


def _variant(variant: VariantReport, base: VariantReport) -> dict[str, Any]:
    if variant.status != "built":
        return {"variant": variant.name, "status": variant.status, "reason": variant.reason}
    return {
        "variant": variant.name,
        "status": "built",
        "eligible": variant.eligible,
        "speedup_vs_source": variant.speedup,
        "quality": variant.quality,
        "quality_loss_pct": loss_pct(variant.quality_drop, base.quality),
        "size_ratio": _ratio(variant.size_mb, base.size_mb),
        "rows_per_s": _rates(variant),
        "seconds": round(sum(step.seconds for step in variant.passes), 1),
    }


def loss_pct(drop: float | None, base: float | None) -> float | None:
    """Return a drop as a percentage of the source's own quality; negative when the variant is better."""
    return None if drop is None or not base else round(100 * drop / abs(base), 4)


def _ratio(value: float | None, base: float | None) -> float | None:
    return round(value / base, 3) if value is not None and base else None


def to_markdown(report: dict[str, Any]) -> str:
    """Return one table a model: its variants, and the other tools' results."""
    lines = ["# Converters, side by side", "", f"{report['machine']}; {', '.join(report['cpu_features'])}."]
    peaks = ", ".join(f"{name} {value:,.0f}" for name, value in report.get("peak_gops", {}).items())
    lines += (
        ["", f"One large matrix product on all cores reaches, in 1e9 operations a second: {peaks}."] if peaks else []
    )
    for model in report["models"]:
        lines += [
            "",
            f"## {model['name']} ({model['source']}, {model['metric']})",
            "",
            f"{model['seconds']:g} s for the whole run, {model['recipe_lines']} lines of recipe.",
            "",
            "| variant | speed-up, batch 1 | quality lost | size | rows/s by batch | share of peak |",
            "|---|---|---|---|---|---|",
        ]
        for variant in model["variants"]:
            mark = " (chosen)" if variant["variant"] == model["winner"] else ""
            lines.append(_line(variant["variant"] + mark, variant))
        lines += [_line(f"*{peer['name']}*", peer) for peer in model["peers"]]
    if report["not_run"]:
        lines += ["", "## Not run", "", *(f"- {entry['name']}: {entry['error']}" for entry in report["not_run"])]
    return "\n".join(lines) + "\n"


def _line(name: str, entry: dict[str, Any]) -> str:
    if "rows_per_s" not in entry:
        return f"| {name} | | | | {entry.get('reason') or entry.get('error', '')} | |"
    rates = ", ".join(f"{batch}: {rate:,.0f}" for batch, rate in entry["rows_per_s"].items())
    loss = f"{entry['quality_loss_pct']:.2f} %" if entry["quality_loss_pct"] is not None else "?"
    found = entry.get("peak_share")
    share = f"{found['share']:.0%} of {found['of']}" if found else ""
    figures = f"{entry['speedup_vs_source'] or 0:.2f}x | {loss} | {entry['size_ratio'] or 0:.2f}"
    return f"| {name} | {figures} | {rates} | {share} |"


def draw(report: dict[str, Any], file: Path) -> None:
    """Draw speed-up against quality lost, a panel a model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = [model for model in report["models"] if model["variants"]]
    if not models:
        return
    figure, panels = pyplot.subplots(1, len(models), figsize=(4 * len(models), 3.6), squeeze=False)
    for panel, model in zip(panels[0], models, strict=True):
        for entries, marker in ((model["variants"], "o"), (model["peers"], "x")):
            for entry in entries:
                if entry.get("speedup_vs_source") is None or entry.get("quality_loss_pct") is None:
                    continue
                name = entry.get("variant") or entry["name"]
                panel.plot(entry["speedup_vs_source"], entry["quality_loss_pct"], marker, color="tab:blue")
                panel.annotate(name, (entry["speedup_vs_source"], entry["quality_loss_pct"]), fontsize=6)
        panel.set(title=model["name"], xlabel="speed-up over the source, batch 1", ylabel="quality lost, %")
        panel.grid(alpha=0.3)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
