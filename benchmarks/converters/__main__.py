"""Hone's converters on the examples, beside other tools: `make bench-converters`, or `python -m benchmarks.converters`.

Each example's recipe is run as `hone optimize` runs it. What the other tools make of the same fp32 graph is measured in
the same interleaved rounds, on the same rows, by the same code, so every ratio is of one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import orjson

from hone.converters.proof.judge import make_judges
from hone.converters.proof.subject import Subject
from hone.converters.proof.verdicts.claims import Asked
from hone.converters.proof.verdicts.verdict import Ruling, verdict_of
from hone.converters.report.records import Report
from hone.converters.run.optimize import Display, Request, optimize
from hone.converters.run.pipeline import Progress
from hone.data import load_dataset
from hone.errors import HoneError, did_you_mean, one_line
from hone.files import atomic_write
from hone.hardware import cores, cpu_features, cpu_name
from hone.recipe import load_recipe

from ..made import made
from .arithmetic import macs_per_row, note_shares, peak
from .entries import FP32, summarize, tool_entry
from .report import draw, to_markdown
from .tools import BY_ITSELF, Tool, given_by, made_by, tools

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Example:
    """A recipe of the examples.

    Attributes:
        name: in the report.
        recipe: beside the repository's root.
        modes: of quantization that other tools try on its fp32 graph, beside what they decide by themselves.
    """

    name: str
    recipe: str
    modes: tuple[str, ...] = ()


EXAMPLES = (
    Example("digits", "examples/digits/recipe.yaml", ("dynamic", "static")),
    Example("digits-keras", "examples/digits/keras.yaml", ("static",)),
    Example("vision-resnet18", "examples/vision/resnet18.yaml", ("dynamic", "static")),
    Example("vision-depthwise", "examples/vision/depthwise.yaml", ("static",)),
    Example("tabular", "examples/tabular/recipe.yaml", ("dynamic",)),
    Example("tabular-net", "examples/tabular/net.yaml", ("dynamic", "static")),
    Example("tabular-lightgbm", "examples/tabular/lightgbm.yaml", ("dynamic",)),
    Example("tabular-anomaly", "examples/tabular/anomaly.yaml", ("dynamic", "sklearn")),
    Example("tabular-survey", "examples/tabular/survey.yaml", ("dynamic",)),
    Example("forecast-lstm", "examples/forecast/lstm.yaml", ("dynamic",)),
    Example("forecast-gru", "examples/forecast/gru.yaml", ("dynamic",)),
    Example("forecast-transformer", "examples/forecast/transformer.yaml", ("dynamic",)),
    Example("minilm", "examples/embeddings/recipe.yaml", ("dynamic",)),
)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
@click.option(
    "--only", "--example", "names", multiple=True, type=click.Choice([e.name for e in EXAMPLES]), help="Default: all."
)
@click.option("--peer", "peers", multiple=True, help="Another tool, such as nncf; default: all.")
@click.option("--variant", "variants", multiple=True, help="Of the recipe; default: all.")
@click.option("--peers", "root", type=click.Path(path_type=Path), default=Path("out/peers"), show_default=True)
def main(out: Path, names: Sequence[str], peers: Sequence[str], variants: Sequence[str], root: Path) -> None:
    """Run the examples and write converters.json, converters.md and converters.png."""
    chosen = [example for example in EXAMPLES if not names or example.name in names]
    known = _named(tools(root.resolve()), peers)
    models, not_run = [], []
    for example in chosen:
        click.echo(f"{example.name}: {example.recipe}", err=True)
        try:
            models.append(run(example, known, variants))
        except HoneError as error:
            not_run.append({"name": example.name, "error": one_line(error)})
            click.echo(f"  not run: {one_line(error)}", err=True)
    report = _report(models, not_run)
    atomic_write(out / "converters.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    text = to_markdown(report)
    atomic_write(out / "converters.md", text)
    draw(report, out / "converters.png")
    click.echo(text)


def _named(known: list[Tool], peers: Sequence[str]) -> list[Tool]:
    """Return the tools of these peers; names may be written with underscores."""
    valid = sorted({tool.peer for tool in known})
    wanted = [name.replace("_", "-") for name in peers]
    for name in wanted:
        if name not in valid:
            raise click.BadParameter(f"no peer '{name}'{did_you_mean(name, valid)}", param_hint="--peer")
    return [tool for tool in known if not wanted or tool.peer in wanted]


def _report(models: list[dict[str, Any]], not_run: list[dict[str, str]]) -> dict[str, Any]:
    peaks = peak()
    for model in models:
        note_shares(model, peaks)
    return {
        "schema": 1,
        **made("benchmarks.converters"),
        "machine": f"{cpu_name()}, {cores()} cores",
        "cpu_features": cpu_features(),
        "peak_gops": peaks,
        "models": models,
        "peers": [{"model": model["name"], **peer} for model in models for peer in model["peers"]],
        "not_run": not_run,
    }


@dataclass
class Comparison:
    """What is made of an example's fp32 graph and measured beside its variants.

    Attributes:
        recipe: of the example.
        tools: that make something of the graph.
        mmacs_per_row: 1e6 multiplications of a row; None until the graph is there.
        variants: of the recipe, the source first.
        subjects: what was made.
        facts: seconds and lines, or an error, by the tool's name.
    """

    recipe: Path
    tools: Sequence[Tool]
    mmacs_per_row: float | None = None
    variants: list[Subject] = field(default_factory=list)
    subjects: list[Subject] = field(default_factory=list)
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __call__(self, variants: list[Subject], scratch: Path) -> list[Subject]:
        """Return what is measured beside a recipe's variants; nothing when it makes no fp32 graph."""
        self.variants = variants
        plain = next((subject.artifact for subject in variants if subject.name == FP32), None)
        if plain is None:
            return []
        self.mmacs_per_row = round(macs_per_row(plain, self.recipe) / 1e6, 3)
        given = given_by(self.recipe, plain, variants[0].artifact)
        for tool in self.tools:
            click.echo(f"  {tool.name}", err=True)
            subject, self.facts[tool.name] = made_by(tool, given, scratch)
            self.subjects += [subject] if subject is not None else []
        return self.subjects

    def entries(self, report: Report) -> list[dict[str, Any]]:
        """Return the tools' entries, once all is measured."""
        loaded, source = load_recipe(self.recipe), self.variants[0]
        signature = source.artifact.signature
        rows = load_dataset(loaded, "evaluation", loaded.recipe.evaluation, signature)
        judges = make_judges(loaded, signature.output_names, has_labels=rows.labels is not None)
        budget, quality = loaded.recipe.budget, loaded.recipe.quality
        asked = Asked(judges, budget, [budget.quality_drop, *(spec.drop for spec in quality.also)])

        # A bound that allows for other variants is wider: beside the winner's, a tool's is taken at the same level.
        level = None if report.winner is None else report.variant(report.winner).level

        def rule(subject: Subject) -> Ruling:
            return verdict_of(source.outputs, subject.outputs, rows.labels, asked, rows.slices, level)

        chosen = next((subject for subject in self.variants if subject.name == report.winner), None)
        measured = [tool_entry(one, report, self.facts[one.name], rule, chosen) for one in self.subjects]
        failed = [{"name": name, "error": fact["error"]} for name, fact in self.facts.items() if "error" in fact]
        return [*measured, *failed]


def run(example: Example, known: Sequence[Tool], variants: Sequence[str] = ()) -> dict[str, Any]:
    """Optimize one example with other tools beside it; return its entry in the report.

    Args:
        variants: of the recipe, with the one that other tools start from; none: all.

    Raises:
        HoneError: the recipe can't be run.
    """
    recipe = ROOT / example.recipe
    modes = (*example.modes, BY_ITSELF)
    beside = Comparison(recipe, [tool for tool in known if tool.mode in modes])
    only = tuple(dict.fromkeys((FP32, *variants))) if variants else ()
    report = optimize(Request(recipe, only=only, store=False, full=True), _quiet(), beside)
    entry = summarize(example.name, report, len(recipe.read_text().splitlines()))
    entry["mmacs_per_row"] = beside.mmacs_per_row
    entry["peers"] = beside.entries(report) if beside.facts else []
    return entry


def _quiet() -> Display:
    return Display(
        plan=lambda _: None,
        passes=Progress(on_start=lambda title: click.echo(f"  {title}", err=True)),
        proof=lambda *_: None,
        message=lambda _: None,
    )


if __name__ == "__main__":
    main()
