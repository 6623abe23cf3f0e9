"""The error of quality that is estimated without labels: `python -m benchmarks.estimates`."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson

from hone.converters.proof.metrics import Answers, all_metrics
from hone.errors import did_you_mean
from hone.evidence.live.confidence import Scorer, expected, expected_figure
from hone.evidence.live.quality import Estimate
from hone.files import atomic_write

from ..made import made
from .traffic import MANY, ROWS, Drawn, Set, sets

METRICS = ("accuracy", "f1", "precision", "recall", "roc_auc", "log_loss")
DOUBT = 0.005
"""In each direction: bounds at 99 %, as `hone feedback check` draws them for one metric."""


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=10, show_default=True, help="Of models and traffic.")
@click.option("--metric", "metrics", multiple=True, help="Such as f1. [default: six]")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
def main(seeds: int, metrics: tuple[str, ...], out: Path) -> None:
    """Compare estimates with labels, write estimates.json and estimates.md."""
    for name in metrics:
        if name not in METRICS:
            raise click.BadParameter(f"no '{name}'{did_you_mean(name, METRICS)}", param_hint="--metric")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"{error.filename or out}: {error.strerror}") from error
    warnings.filterwarnings("ignore", module="sklearn")
    found: dict[tuple[str, str, str], list[tuple[float, Estimate]]] = {}
    for seed in range(seeds):
        click.echo(f"seed {seed + 1} of {seeds}", err=True)
        for one in sets(seed):
            for shift, draw in one.shifts.items():
                generator = np.random.default_rng(seed)
                asked, many = draw(generator, ROWS)[0], draw(generator, MANY)
                for metric in metrics or METRICS:
                    found.setdefault((one.name, shift, metric), []).append(compared(one, asked, many, metric))
    report = {
        "schema": 1,
        "kind": "estimates",
        **made("benchmarks.estimates"),
        "seeds": seeds,
        "rows": ROWS,
        "labeled": MANY,
        "results": [entry(*about, pairs) for about, pairs in found.items()],
    }
    atomic_write(out / "estimates.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    atomic_write(out / "estimates.md", text := to_markdown(report))
    click.echo(text)


def compared(one: Set, asked: np.ndarray, many: Drawn, metric: str) -> tuple[float, Estimate]:
    """Return a metric as labels of many rows show it, and as it is expected of some of the same kind without them."""
    known, live, found = one.scores(one.proof), one.scores(asked), all_metrics()[metric]
    true = found.score(Answers(scores := one.scores(many[0]), scores, many[1]))
    if metric == "accuracy":
        return true, expected(live.max(axis=1), known.max(axis=1), known.argmax(axis=1) == one.labels)

    def scorer(places: np.ndarray) -> Scorer:
        return found.scorer(Answers(live, live, places))

    return true, expected_figure(scorer, live, known, one.labels, found.bounds)


def entry(name: str, shift: str, metric: str, pairs: list[tuple[float, Estimate]]) -> dict[str, Any]:
    """Return what seeds say of an estimate: both figures, how far they are apart, and how often bounds hold."""
    true, points = (np.array(values) for values in zip(*((one, found.point) for one, found in pairs), strict=True))
    held = [found.low(DOUBT) <= one <= found.high(DOUBT) for one, found in pairs]
    return {
        "set": name,
        "traffic": shift,
        "metric": metric,
        "labels": float(true.mean()),
        "expected": float(points.mean()),
        "off": float(np.abs(points - true).mean()),
        "most": float(np.abs(points - true).max()),
        "held": int(np.sum(held)),
        "of": len(pairs),
    }


def to_markdown(report: dict[str, Any]) -> str:
    """Return a line for each set, shift and metric."""
    lines = [
        "# Estimates without labels",
        "",
        f"{report['rows']:,} rows of traffic beside {report['labeled']:,} with labels, {report['seeds']} models "
        "and draws of each set; means over them.",
        "",
        "| set | traffic | metric | labels show | expected | off by, mean | at most | bounds hold |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {one['set']} | {one['traffic']} | {one['metric']} | {one['labels']:.3f} | {one['expected']:.3f} "
        f"| {one['off']:.3f} | {one['most']:.3f} | {one['held']} of {one['of']} |"
        for one in report["results"]
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
