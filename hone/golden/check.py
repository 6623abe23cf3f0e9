"""Compare what a loaded model answers to the golden rows with what the proof was answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hone.errors import one_line
from hone.golden.record import Golden, Tolerance
from hone.golden.rows import GoldenRows
from hone.golden.tolerance import gaps
from hone.signature import Tensors
from hone.steps.pipeline import ReadySteps
from hone.steps.rows import strayed

BUDGET_S = 0.25
"""For all of it, at load; what a slow model doesn't get through is left to hourly checks."""
ALONE = 0.5
"""Share of the time for rows that are asked for alone; the batch has the rest."""
FEWEST = 4
"""Rows that are asked for alone in any case, and as many others in the batch."""
MOST_JOINED = 16
"""Rows of the one batch that is asked for."""

Ask = Callable[[Tensors], Tensors]


@dataclass(frozen=True)
class Checked:
    """What a comparison found.

    Attributes:
        rows: that were compared.
        seconds: that it took.
        problems: one an output, in words; empty: the answers are the proof's.
    """

    rows: int
    seconds: float
    problems: tuple[str, ...]

    @property
    def match(self) -> bool:
        return not self.problems

    def describe(self) -> str:
        if self.match:
            return f"{self.rows} golden rows match, {self.seconds * 1e3:.0f} ms"
        return f"other answers than its proof's to {self.rows} golden rows: {'; '.join(self.problems)}"


def check_rows(
    golden: GoldenRows,
    record: Golden,
    ask: Ask,
    batch: int,
    budget_s: float = BUDGET_S,
    steps: ReadySteps | None = None,
) -> Checked:
    """Ask for golden rows, each alone and then some in a batch, and compare; so with what its steps make of rows.

    The batch holds rows that there was no time for alone, where there are some: each row that is looked at finds more.

    Args:
        golden: rows and answers.
        record: their tolerances.
        ask: the model.
        batch: rows of the largest batch, as the model is served.
        budget_s: seconds that it should take. FEWEST rows alone, and as many in the batch, are asked for in any case;
            where batches hold fewer, twice as many alone.
        steps: the model's steps, where it has some.
    """
    started = time.perf_counter()
    if steps and (problem := strayed(steps, golden.raw, golden.inputs, golden.outputs, golden.answers)):
        return Checked(golden.count, time.perf_counter() - started, (problem,))
    parts: list[Tensors] = []
    try:
        fewest = FEWEST if batch >= FEWEST else 2 * FEWEST
        while len(parts) < golden.count and (len(parts) < fewest or time.perf_counter() - started < ALONE * budget_s):
            parts.append(ask(golden.slice(len(parts), len(parts) + 1)))
        rows = len(parts)
        problems = differing(golden, record.outputs, parts, rows)
        spent = max(time.perf_counter() - started, 1e-9)
        affordable = max(FEWEST, int((budget_s - spent) * rows / spent))
        joined = min(batch, MOST_JOINED, golden.count, affordable)
        if not problems and joined > 1:
            first = rows if rows + joined <= golden.count else 0
            others = golden.part(first, joined)
            found = differing(others, record.joined, [ask(others.inputs)], joined)
            problems = tuple(f"in a batch of {joined} rows {problem}" for problem in found)
            rows = max(rows, first + joined)
    except Exception as error:  # noqa: BLE001 - whatever it is, it isn't the proof's answer
        return Checked(max(1, len(parts)), time.perf_counter() - started, (f"it fails: {one_line(error)}",))
    return Checked(rows, time.perf_counter() - started, problems)


def differing(
    golden: GoldenRows, allowed: Mapping[str, Tolerance], parts: Sequence[Tensors], rows: int
) -> tuple[str, ...]:
    """Return what is wrong with the answers to the first rows, in the parts that they came in."""
    names = [name for name in allowed if all(name in part for part in parts)]
    try:
        got = {name: np.concatenate([part[name] for part in parts]) for name in names}
    except ValueError as error:
        return (f"answers have several shapes: {one_line(error)}",)
    found = gaps({name: array[:rows] for name, array in golden.outputs.items()}, got, allowed)
    return tuple(f"output '{name}' {problem}" for name, problem in found.items())
