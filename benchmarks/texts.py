"""What steps cost: a model asked with text, and with the tensors that its tokenizer makes of the same text.

`python -m benchmarks.texts MODEL`, for a stored artifact with a `tokenize` step whose evaluation rows are kept here.
Both ways take turns on one server, one row a request over V2 binary, with wrk. Beside rows a second there is the
processor time of a row, which a busy host disturbs less.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import orjson

from hone import store
from hone.errors import HoneError
from hone.evidence.bounds import ratio_interval
from hone.files import atomic_write
from hone.hardware import cores, cpu_name
from hone.services.launch import running
from hone.signature import Tensors, as_objects
from hone.steps.ready import ready_steps
from hone.store.rows import read_given
from hone.store.trust import Policy, open_to_run

from .load.wire import Call, v2_binary_call
from .made import made
from .serving import wrk
from .usage import listeners, worked_s

CONNECTIONS = 32
ROWS = 64
"""Different texts that are asked with, in turn."""


def requests_of(tag: str) -> dict[str, list[Call]]:
    """Return the same requests as text and as tensors.

    Raises:
        HoneError: no rows are kept here as callers have them, or it has no steps.
    """
    entry = store.resolve(tag)
    artifact, given = open_to_run(entry, Policy.from_environment()), read_given(entry.path)
    steps = ready_steps(artifact)
    if steps is None or not given:
        raise HoneError(f"{entry.tag} has no steps, or no rows as callers have them are kept here: optimize it again")
    path = f"/v2/models/{entry.name}/infer"
    dtypes = {spec.name: spec.dtype for spec in (*steps.inputs.values(), *artifact.signature.inputs)}
    texts: list[Tensors] = [
        {name: as_objects(array[row : row + 1]) for name, array in given.items()}
        for row in range(min(ROWS, len(next(iter(given.values())))))
    ]
    return {
        "text": [v2_binary_call(path, row, dtypes) for row in texts],
        "tensors": [v2_binary_call(path, steps.tensors(row)[0], dtypes) for row in texts],
    }


@click.command()
@click.argument("model")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=6, show_default=True, help="Turns of each.")
@click.option("--seconds", type=click.FloatRange(1), default=5.0, show_default=True, help="Of a turn.")
def main(model: str, out: Path, rounds: int, seconds: float) -> None:
    """Ask MODEL with text and with tensors, in turns; write texts.json."""
    try:
        calls = requests_of(model)
        found: dict[str, list[wrk.Measured]] = {way: [] for way in calls}
        worked: dict[str, list[float]] = {way: [] for way in calls}
        with running(store.resolve(model).tag) as url:
            for way in calls:
                wrk.load(url, calls[way], CONNECTIONS, 2)
            processes = listeners(url)
            for number in range(rounds):
                for way in sorted(found, reverse=bool(number % 2)):
                    before = worked_s(processes)
                    found[way].append(wrk.load(url, calls[way], CONNECTIONS, seconds))
                    worked[way].append((worked_s(processes) - before) * 1e3 / max(1, found[way][-1].requests))
    except HoneError as error:
        raise click.ClickException(str(error)) from error
    rates = {way: [round(one.rps, 1) for one in measured] for way, measured in found.items()}
    low, share, high = ratio_interval(rates["text"], rates["tensors"])
    work = {way: round(float(np.median(times)), 4) for way, times in worked.items()}
    report = {
        "schema": 1, **made("benchmarks.texts"), "machine": f"{cpu_name()}, {cores()} cores", "model": model,
        "connections": CONNECTIONS, "rows_per_s": rates, "share": round(share, 4),
        "share_ci": [round(low, 4), round(high, 4)], "cpu_ms_per_row": work,
        "p99_ms": {way: [one.p99_ms for one in measured] for way, measured in found.items()},
        "errors": sum(one.errors for measured in found.values() for one in measured),
    }  # fmt: skip
    atomic_write(out / "texts.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    medians = {way: float(np.median(rate)) for way, rate in rates.items()}
    click.echo(
        f"text {medians['text']:,.0f} rows/s, tensors {medians['tensors']:,.0f} rows/s: {share:.1%} "
        f"({low:.1%} to {high:.1%}); a row takes {work['text']:.3g} and {work['tensors']:.3g} ms of processors"
    )


if __name__ == "__main__":
    main()
