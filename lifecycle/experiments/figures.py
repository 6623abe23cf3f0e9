"""Figures of an experiment by unit, from answers that services keep and what became known of them later."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hone.evidence.arms.means import Sums
from hone.traffic.keys import read_key

from ..feedback.joined import DAY_S, Joined, joined
from .metrics import ExperimentError, Metric
from .state import Experiment

MARGIN_S = 5.0
"""Around a change of the weights, in which answers don't count: services change one after the other, and their clocks
differ from this one by as much."""

LONGEST_S = 35 * DAY_S
"""That feedback is waited for where nothing else is said: as long as services keep answers."""

HALF = 0.5


@dataclass
class _Cell:
    """Units of an arm while weights stood still."""

    units: dict[str, int] = field(default_factory=dict)
    counts: list[list[float]] = field(default_factory=list)
    totals: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """What is known of the arms from kept answers.

    Attributes:
        sums: by the name of a metric, of each stage, of each arm.
        units: of each stage, of each arm.
        known: by the name of a metric, answers of each arm that have it.
        strays: units that were seen in several arms.
    """

    sums: dict[str, list[tuple[Sums, ...]]]
    units: list[tuple[int, ...]]
    known: dict[str, tuple[int, ...]]
    strays: int


def gather(experiment: Experiment, metrics: Sequence[Metric], now: float) -> Figures:
    """Read the answers that count by now.

    Raises:
        HoneError: the folder or its key can't be read.
    """
    if not experiment.feedback:
        raise ExperimentError("no kept answers: give --dir, the folder of HONE_FEEDBACK_DIR of the services")
    key = read_key(experiment.key_file) if experiment.key_file else None
    within = experiment.wait_s or LONGEST_S
    answers = joined(
        Path(experiment.feedback), experiment.name, since_s=experiment.since + MARGIN_S,
        until_s=now - experiment.wait_s, within_s=within, key=key,
    )  # fmt: skip
    return tally(experiment, metrics, answers)


def tally(experiment: Experiment, metrics: Sequence[Metric], answers: Iterable[Joined]) -> Figures:
    """Add answers up, by unit."""
    starts = [stage.since for stage in experiment.stages]
    places = {name: place for place, name in enumerate(experiment.arms)}
    cells: dict[tuple[int, int], _Cell] = defaultdict(_Cell)
    seen: dict[str, int] = {}
    strays: set[str] = set()
    still = [bool(stage.weights) for stage in experiment.stages]
    for one in answers:
        arm = places.get(one.arm)
        stage = bisect_right(starts, one.time - MARGIN_S) - 1
        turning = stage + 1 < len(starts) and one.time > starts[stage + 1] - MARGIN_S
        if (
            arm is None
            or stage < 0
            or turning
            or not still[stage]
            or one.by != "split"
            or one.version != experiment.versions[arm]
        ):
            continue
        unit = one.unit if experiment.sticky and one.unit else one.request_id
        if seen.setdefault(unit, arm) != arm:
            strays.add(unit)
        _add(cells[stage, arm], unit, [value_of(one, metric, experiment.output) for metric in metrics])
    return _figures(experiment, metrics, cells, len(strays))


def _add(cell: _Cell, unit: str, values: list[float | None]) -> None:
    place = cell.units.setdefault(unit, len(cell.units))
    if place == len(cell.counts):
        cell.counts.append([0.0] * len(values))
        cell.totals.append([0.0] * len(values))
    for number, value in enumerate(values):
        if value is not None:
            cell.counts[place][number] += 1
            cell.totals[place][number] += value


def _figures(
    experiment: Experiment, metrics: Sequence[Metric], cells: dict[tuple[int, int], _Cell], strays: int
) -> Figures:
    stages, arms = range(len(experiment.stages)), range(len(experiment.arms))
    tables = {
        place: (np.array(cell.counts, np.float64), np.array(cell.totals, np.float64)) for place, cell in cells.items()
    }
    sums: dict[str, list[tuple[Sums, ...]]] = {}
    known: dict[str, tuple[int, ...]] = {}
    for number, metric in enumerate(metrics):
        found = {place: _sums(counts[:, number], totals[:, number]) for place, (counts, totals) in tables.items()}
        sums[metric.name] = [tuple(found.get((stage, arm), Sums()) for arm in arms) for stage in stages]
        known[metric.name] = tuple(int(sum(one[arm].counts for one in sums[metric.name])) for arm in arms)
    units = [tuple(len(cells[stage, arm].units) for arm in arms) for stage in stages]
    return Figures(sums, units, known, strays)


def _sums(counts: np.ndarray, totals: np.ndarray) -> Sums:
    """Return the sums of the units that have a figure."""
    some = counts > 0
    return Sums.of(counts[some], totals[some])


def value_of(one: Joined, metric: Metric, output: str = "") -> float | None:
    """Return an answer's figure; None where it isn't known."""
    if metric.name == "latency":
        return one.seconds * 1e3 if one.seconds else None
    if metric.is_figure:
        return one.figures.get(metric.name, 0.0 if metric.zero else None)
    found = next(iter(one.outputs.values()), None) if not output else one.outputs.get(output)
    if one.label is None or found is None:
        return None
    labels = np.asarray(one.label).reshape(-1)
    if len(labels) != len(found):
        return None
    if metric.name == "accuracy":
        return float((decided(found, labels) == labels.astype(str)).mean())
    try:
        return float(np.abs(found.reshape(len(found), -1)[:, 0].astype(float) - labels.astype(float)).mean())
    except ValueError:
        return None


def decided(found: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return what was answered, as texts: the place of the largest of several scores, for one score whether it is
    over a half where labels are 0 and 1, else the answer itself."""
    rows = found.reshape(len(found), -1)
    if rows.shape[1] > 1:
        return rows.argmax(axis=1).astype(str)
    values = rows[:, 0]
    if values.dtype.kind == "f" and labels.dtype.kind in "bi":
        is_yes_or_no = bool(np.isin(labels, (0, 1)).all())
        values = values > HALF if is_yes_or_no else np.rint(values)
        values = values.astype(labels.dtype)
    return np.asarray(values.astype(str))
