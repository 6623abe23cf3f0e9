"""Take a profile: a batch with the profiler off and on, its operators, and what is found in them."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hone import runtimes
from hone.artifact import Artifact
from hone.errors import HoneError, UnavailableError, one_line
from hone.hardware import host
from hone.profiles.findings import Seen, find
from hone.profiles.findings.hosts import lacking
from hone.profiles.graph import Graph, read_graph
from hone.profiles.record import NodeShare, OperatorTime, Profile, ProfileFinding
from hone.runtimes.base import Runtime
from hone.runtimes.trace import GRAPH, WARM_UPS, Trace, timed

BUDGET_S = 1.0
"""For the runs of a profile, when nobody says how many."""
FEWEST, MOST = 10, 200
QUIET = 0.95
"""Of the time without the profiler: what is faster with it was disturbed without."""
ROUGH_S = 5e-6
"""Mean time of an operator below which shares are said to be rough."""


@dataclass(frozen=True)
class Taken:
    """The times of some runs, without and with the profiler.

    Attributes:
        plain_s: of a batch, the median.
        trace: of the runtime.
        runs: with the profiler.
    """

    plain_s: float
    trace: Trace
    runs: int

    @property
    def profiled_s(self) -> float:
        return statistics.median(self.trace.run_seconds)

    @property
    def traced_s(self) -> float:
        """Of all operators in a batch, as the profiler saw them."""
        return sum(node.seconds for node in self.trace.nodes)

    @property
    def inside_s(self) -> float:
        """Of a batch without the profiler, what operators took: at most all, since they look slower with it."""
        steady = min(self.plain_s, self.profiled_s)  # where the host got faster meanwhile, that is no time between them
        return self.plain_s * min(1.0, self.trace.inside_seconds / steady)


@dataclass(frozen=True)
class Asked:
    """What to profile, and how it is run.

    Attributes:
        tag: of the artifact.
        artifact: opened.
        threads: of one inference.
        threads_from: why so many, in words.
        inputs: a batch.
        rows_from: where its rows are from, in words.
        batch: its rows.
        runs: of the batch; None: as many as fit into about a second.
    """

    tag: str
    artifact: Artifact
    threads: int
    threads_from: str
    inputs: Mapping[str, np.ndarray]
    rows_from: str
    batch: int
    runs: int | None = None


def profile(asked: Asked, folder: Path) -> Profile:
    """Profile an artifact on this host.

    Args:
        asked: what, and how.
        folder: that is there; the runtime writes its trace there, and ONNX Runtime the graph that it runs.

    Raises:
        UnavailableError: this host has no such runtime, or it doesn't tell the time of operators.
        HoneError: the model fails on the batch.
    """
    runtime = runtimes.load(asked.artifact, asked.threads)
    try:
        taken = take(runtime, asked.inputs, asked.runs, folder)
        described = runtime.describe()
    except HoneError:
        raise
    except Exception as error:
        raise HoneError(f"{asked.tag} fails on a batch of {asked.batch} rows: {one_line(error)}") from error
    finally:
        runtime.close()
    facts = host()
    found, notes = findings(asked.artifact, taken, asked.batch, folder)
    return Profile(
        model=asked.tag,
        digest=asked.artifact.digest,
        runtime=described,
        precision=asked.artifact.manifest.precision,
        host=facts,
        lacks=lacking(facts),
        threads=asked.threads,
        threads_from=asked.threads_from,
        batch=asked.batch,
        shapes={name: array.shape for name, array in asked.inputs.items()},
        runs=taken.runs,
        rows_from=asked.rows_from,
        plain_ms=taken.plain_s * 1e3,
        profiled_ms=taken.profiled_s * 1e3,
        operators=operators(taken),
        nodes=nodes(taken),
        findings=found,
        notes=notes,
    )


def take(runtime: Runtime, inputs: Mapping[str, np.ndarray], runs: int | None, folder: Path) -> Taken:
    """Run a batch with the profiler off, on and off again: the host may get slower or faster meanwhile.

    Args:
        runtime: loaded, as it is served.
        inputs: a batch.
        runs: with the profiler, and as many without; None: as many as fit into about a second.
        folder: for the runtime's trace.
    """
    timed(lambda: runtime.run(inputs), WARM_UPS)
    if runs is None:
        runs = min(MOST, max(FEWEST, int(BUDGET_S / max(timed(lambda: runtime.run(inputs), 1)[0], 1e-6))))
    half = -(-runs // 2)
    plain = timed(lambda: runtime.run(inputs), half)
    trace = runtime.profile(inputs, runs, folder)
    runtime.run(inputs)
    plain += timed(lambda: runtime.run(inputs), half)
    return Taken(statistics.median(plain), trace, runs)


def findings(
    artifact: Artifact, taken: Taken, batch: int, folder: Path
) -> tuple[tuple[ProfileFinding, ...], tuple[str, ...]]:
    """Return what is found in a profile, and what must be known to read it.

    Args:
        artifact: that was profiled.
        taken: its times on this host.
        batch: rows of a run.
        folder: that the runtime wrote to.
    """
    notes = [taken.trace.note] if taken.trace.note else []
    if taken.profiled_s < QUIET * taken.plain_s:
        notes.append("the host was disturbed: a batch was faster with the profiler than without; trust shares only")
    if taken.traced_s < ROUGH_S * len(taken.trace.nodes):
        notes.append("runtimes tell whole microseconds, and most operators take few: shares are rough")
    graph: Graph | None = None
    if (folder / GRAPH).is_file():
        try:
            graph = read_graph(folder / GRAPH, [(node.name, node.operator) for node in taken.trace.nodes])
        except UnavailableError as error:
            notes.append(str(error))
    facts = host()
    outside = 1 - taken.inside_s / taken.plain_s
    seen = Seen(artifact.manifest, nodes(taken), graph, facts, lacking(facts), batch, outside)
    return find(seen), tuple(notes)


def nodes(taken: Taken) -> tuple[NodeShare, ...]:
    """Return every node with its share of the time, the slowest first."""
    whole = taken.traced_s or 1.0
    return tuple(
        NodeShare(
            name=node.name,
            operator=node.operator,
            where=node.where,
            kernel=node.kernel,
            ms=node.seconds / whole * taken.inside_s * 1e3,
            share=node.seconds / whole,
            calls=node.calls,
        )
        for node in sorted(taken.trace.nodes, key=lambda node: -node.seconds)
    )


def operators(taken: Taken) -> tuple[OperatorTime, ...]:
    """Return the time of each type of operator, what takes most first."""
    whole = taken.traced_s or 1.0
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for node in taken.trace.nodes:
        found[node.operator, node.where].append(node.seconds)
    times = [
        OperatorTime(
            operator=kind,
            where=where,
            ms=sum(seconds) / whole * taken.inside_s * 1e3,
            share=sum(seconds) / whole,
            nodes=len(seconds),
        )
        for (kind, where), seconds in found.items()
    ]
    return tuple(sorted(times, key=lambda time: -time.ms))
