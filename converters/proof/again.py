"""Prove a stored artifact again: here, or with another version of its runtime beside the one that is installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from hone import runtimes, store
from hone.artifact import Artifact
from hone.data import Dataset, save_dataset
from hone.errors import HoneError
from hone.evidence.bounds import median_interval
from hone.evidence.turns import against_itself, against_other
from hone.golden.check import differing
from hone.golden.record import Tolerance
from hone.golden.rows import GoldenRows, read_rows
from hone.golden.tolerance import rounding, tolerances
from hone.hardware import cores, host
from hone.hardware.differences import differences
from hone.runtimes.onnx.providers import on_gpu
from hone.signature import Tensors
from hone.store.rows import read_rows as kept_rows
from hone.store.trust import Policy, open_to_run

from .environment import python_with
from .probe_process import ProbeProcess

TURN_MS = 50
MOST_KEPT = 64
"""Of the rows that are kept for load tests, where there are no golden ones."""

Speed = Literal["within", "slower", "undecided", "not compared"]


@dataclass(frozen=True)
class Again:
    """What a second proof found.

    Attributes:
        runtime: of this proof, as it describes itself.
        against: what its speed is compared with, in words.
        ratio, low, high: its time over the other's, and the interval of that; None: not compared.
        disturbed: the one that was measured twice differs from itself.
        problems: how its answers differ; empty: they don't.
        rows: that were asked for.
        checked: its answers were compared with, in words.
        note: why speeds were not compared, or an empty string.
    """

    runtime: str
    against: str
    ratio: float | None
    low: float | None
    high: float | None
    disturbed: bool
    problems: tuple[str, ...]
    rows: int
    checked: str
    note: str = ""

    def speed(self, tolerance: float) -> Speed:
        """Return whether it is slower than a tolerance allows, beyond doubt.

        Args:
            tolerance: as a share: 0.1 allows ten percent.
        """
        if self.low is None or self.high is None:
            return "not compared"
        if self.disturbed:
            return "undecided"
        if self.low > 1 + tolerance:
            return "slower"
        return "within" if self.high <= 1 + tolerance else "undecided"


@dataclass(frozen=True)
class _Asked:
    """Rows to ask for, and what the answers are compared with."""

    rows: Tensors
    expected: GoldenRows | None
    allowed: dict[str, Tolerance]


def prove_again(entry: store.Entry, requirement: str | None, turns: int, progress: Callable[[str], None]) -> Again:
    """Prove a stored artifact again.

    Args:
        entry: of the store.
        requirement: PACKAGE==VERSION of its runtime to prove it with; None: what is installed.
        turns: in which times are taken.
        progress: called with what is being done.

    Raises:
        HoneError: it can't run here, the version can't be installed, or there are no rows to ask for.
    """
    artifact = open_to_run(entry, Policy.from_environment())
    if problem := store.host_problem(entry):
        raise HoneError(f"{entry.tag} can't be proven here: {problem}")
    asked = _asked(entry, artifact)
    python = None
    if requirement is not None:
        progress(f"an environment with {requirement}")
        python = python_with(requirement, artifact.runtime)
    with TemporaryDirectory(prefix="hone-prove-") as scratch:
        return _proven(entry, artifact, asked, Path(scratch), python, turns, progress)


def _asked(entry: store.Entry, artifact: Artifact) -> _Asked:
    golden = artifact.manifest.golden
    if golden is not None:
        rows = read_rows(artifact.path, golden, artifact.signature)
        return _Asked(rows.inputs, rows, golden.outputs)
    kept = kept_rows(entry.path)
    if kept is None:
        raise HoneError(f"{entry.tag} has no golden rows, nor are rows kept beside it: optimize the model again")
    return _Asked({name: array[:MOST_KEPT] for name, array in kept.items()}, None, {})


def _proven(
    entry: store.Entry,
    artifact: Artifact,
    asked: _Asked,
    scratch: Path,
    python: Path | None,
    turns: int,
    progress: Callable[[str], None],
) -> Again:
    rows = scratch / "rows.npz"
    save_dataset(Dataset(asked.rows), rows)
    selection = artifact.manifest.selection
    batch, threads = (selection.batch or 1, selection.threads or 1) if selection else (1, 1)
    threads = min(threads, cores())
    probes = {"here": ProbeProcess(entry.tag, artifact.path, rows, scratch / "here.log")}
    if python is not None:
        probes["other"] = ProbeProcess(entry.tag, artifact.path, rows, scratch / "other.log", python)
    try:
        described, answers = {}, {}
        for name, probe in probes.items():
            probe.answer()
            described[name] = probe.ask("load", threads=threads)["describe"]
            answers[name], _ = probe.answers(scratch / f"{name}.npz", 1)
        times = _turns(probes, batch, turns, progress)
    finally:
        for probe in probes.values():
            probe.close()
    problems, checked = _compared(artifact, asked, answers)
    count = len(next(iter(asked.rows.values())))
    if python is not None:
        control = against_itself(times["here"], times["here again"])
        found = against_other(times["here"], times["here again"], times["other"])
        disturbed = not control.low <= 1 <= control.high
        return Again(
            described["other"],
            f"{described['here']}, in turns",
            found.ratio,
            found.low,
            found.high,
            disturbed,
            problems,
            count,
            checked,
        )
    ratio, note = _against_record(artifact, batch, threads, times["here"])
    return Again(described["here"], "its own proof", *ratio, False, problems, count, checked, note)


def _turns(
    probes: dict[str, ProbeProcess], batch: int, turns: int, progress: Callable[[str], None]
) -> dict[str, list[float]]:
    """Return the median milliseconds of each turn; what is here goes twice a turn when there is another."""
    names = ["here", "here again", "other"] if "other" in probes else ["here"]
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(turns):
        progress(f"turn {turn + 1} of {turns}")
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            probe = probes["other" if name == "other" else "here"]
            latencies = probe.ask("time", batch=batch, milliseconds=TURN_MS)["latencies_ns"]
            times[name].append(float(np.median(latencies)) / 1e6)
    return times


def _compared(artifact: Artifact, asked: _Asked, answers: dict[str, Tensors]) -> tuple[tuple[str, ...], str]:
    """Return how the newest answers differ, and from what; the golden rows' where there are some."""
    newest = answers.get("other", answers["here"])
    count = len(next(iter(asked.rows.values())))
    if asked.expected is not None:
        return differing(asked.expected, asked.allowed, [newest], count), "its golden rows"
    if "other" not in answers:
        return (), ""
    rounded = rounding(artifact.manifest.precision, on_gpu(artifact))
    allowed = tolerances(answers["here"], [], rounded)
    return differing(GoldenRows(asked.rows, answers["here"]), allowed, [newest], count), "the installed version's"


def _against_record(
    artifact: Artifact, batch: int, threads: int, times: list[float]
) -> tuple[tuple[float | None, float | None, float | None], str]:
    """Return the time over that of the proof with its interval, and why there is none."""
    nothing = (None, None, None)
    measured = artifact.manifest.measurements
    recorded = measured.at(batch, threads) if measured else None
    if measured is None or recorded is None or not recorded.p50_low or not recorded.p50_high:
        return nothing, "its proof has no rounds to compare with"
    here = {**host(), "runtime": runtimes.version_here(artifact.runtime)}
    other = [line for line in differences(measured.host, here) if not line.startswith("runtime")]
    if other or measured.host.get("cpu") != here["cpu"]:
        return nothing, f"its proof was made on another host: {'; '.join(other) or measured.host.get('cpu')}"
    low, high = median_interval(times)
    return (float(np.median(times)) / recorded.p50, low / recorded.p50_high, high / recorded.p50_low), ""
