"""How near `hone score` comes to the bare runtime: `make bench-score`, or `python -m benchmarks.scoring`.

Both run the same artifact by the same plan, in turns: the runtime on tensors that are in memory, batch after batch, and
a whole run from one Parquet file to another, without the loading of the model. Exit status 3 when the median of the
turns' ratios is under the aim.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import orjson

from hone.errors import HoneError
from hone.files import atomic_write
from hone.plan import VARIABLE
from hone.scoring.run import Request, score
from hone.services.models.loading import LoadedModel, candidates, load
from hone.services.settings import Settings
from hone.signature import Tensors

from ..made import made
from ..overload.model import store_slow_model

MISSED = 3
LAYERS = 40
"""Of the model that is made: some ten thousand rows/s on two cores."""


@click.command()
@click.option("--model", help="A stored one without steps, of inputs of fixed sizes. [default: one made for this]")
@click.option("--rows", type=click.IntRange(1), default=100_000, show_default=True)
@click.option("--turns", type=click.IntRange(1), default=5, show_default=True)
@click.option("--aim", type=click.FloatRange(0), default=0.95, show_default=True, help="Least ratio.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
def main(model: str | None, rows: int, turns: int, aim: float, out: Path) -> None:
    """Score a file of rows beside the bare runtime; write score.json."""
    try:
        with tempfile.TemporaryDirectory(prefix="hone-score-") as folder, _model(model, Path(folder)) as loaded:
            tensors, source = _rows(loaded, rows, Path(folder))
            ratios, bare, scored = [], [], []
            for turn in range(turns):
                bare.append(rows / _bare(loaded, tensors))
                scored.append(rows / _scored(loaded, source, Path(folder) / f"{turn}.parquet"))
                ratios.append(scored[-1] / bare[-1])
                click.echo(f"{bare[-1]:,.0f} rows/s bare, {scored[-1]:,.0f} scored: {ratios[-1]:.3f}", err=True)
    except HoneError as error:
        raise click.ClickException(str(error)) from error
    ratio = statistics.median(ratios)
    figures = {
        "schema": 1,
        "kind": "score",
        **made("benchmarks.scoring"),
        "model": loaded.entry.tag,
        "plan": loaded.plan.describe(),
        "rows": rows,
        "bare_rows_per_s": bare,
        "scored_rows_per_s": scored,
        "ratios": ratios,
        "ratio": ratio,
        "aim": aim,
        "verdict": "met" if ratio >= aim else "missed",
    }
    atomic_write(out / "score.json", orjson.dumps(figures, option=orjson.OPT_INDENT_2))
    verdict = f"at least {aim:g}: {figures['verdict']}"
    click.echo(f"{ratio:.3f} of the bare runtime's rows/s, {verdict}; {out / 'score.json'}")
    if ratio < aim:
        sys.exit(MISSED)


@contextmanager
def _model(reference: str | None, folder: Path) -> Iterator[LoadedModel]:
    """Yield a model, and let every run after it follow its plan."""
    if reference is None:
        (folder / "home" / "models").mkdir(parents=True)
        os.environ["BENTOML_HOME"] = str(folder / "home")
        reference = store_slow_model(folder / "model", LAYERS).tag
    settings = replace(Settings.from_environment(), workers=1, default_timeout_ms=0.0)
    loaded = load(candidates(reference, settings=settings), settings)
    os.environ[VARIABLE] = loaded.plan.model_dump_json()
    try:
        yield loaded
    finally:
        del os.environ[VARIABLE]
        loaded.runtime.close()


def _rows(loaded: LoadedModel, rows: int, folder: Path) -> tuple[Tensors, Path]:
    """Return rows as tensors, and as a file of lists beside a key."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from hone.scoring.reading.arrays import as_arrow

    generator, tensors = np.random.default_rng(0), {}
    for spec in loaded.artifact.signature.inputs:
        sizes = [size for size in spec.shape[1:] if isinstance(size, int)]
        if len(sizes) != len(spec.shape) - 1 or spec.numpy_dtype.kind != "f" or loaded.steps is not None:
            raise HoneError(f"{loaded.entry.tag}: '{spec.name}' is {spec.describe()}; name a model of float inputs")
        tensors[spec.name] = generator.normal(size=(rows, *sizes)).astype(spec.numpy_dtype)
    table = pa.table({"id": np.arange(rows), **{name: as_arrow(array) for name, array in tensors.items()}})
    parquet.write_table(table, folder / "rows.parquet")
    return tensors, folder / "rows.parquet"


def _bare(loaded: LoadedModel, tensors: Tensors) -> float:
    """Return the seconds of all batches in the runtime, as the plan says."""
    plan, rows = loaded.plan, len(next(iter(tensors.values())))
    size = plan.max_batch_rows
    began = time.perf_counter()
    parts = ({name: a[i : i + size] for name, a in tensors.items()} for i in range(0, rows, size))
    if plan.in_flight == 1:
        for part in parts:
            loaded.runtime.run(part)
    else:
        with ThreadPoolExecutor(plan.in_flight) as pool:
            for _ in pool.map(loaded.runtime.run, parts):
                pass
    return time.perf_counter() - began


def _scored(loaded: LoadedModel, source: Path, out: Path) -> float:
    result = score(Request(loaded.entry.tag, source, out, keep=("id",)), lambda *_: None)
    out.unlink()
    return result.seconds


if __name__ == "__main__":
    main()
