"""Prove variants: each in a fresh process, quality against the source, latency in interleaved rounds."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hone.artifact import Artifact, Latency, Measurements, Quality
from hone.data import read_dataset
from hone.errors import HoneError, RecipeError
from hone.evidence.bounds import median_interval, round_percentiles
from hone.hardware import cores, host
from hone.hardware.energy import POWERCAP, energy_meter
from hone.recipe import LoadedRecipe, MeasureSpec
from hone.signature import Tensors

from .differences import differences
from .disturbance import HostNoise, HostWatch
from .judge import Judge
from .probe_process import ProbeProcess
from .profiling import Profiler, ShortProfile

EVALUATION_BATCH = 32


@dataclass
class Subject:
    """A variant under proof."""

    name: str
    artifact: Artifact
    failure: str = ""
    measurements: Measurements | None = None
    runtime: str = ""
    version: str = ""
    """Of the runtime."""
    profile: ShortProfile | None = None
    """Where its time goes; None: that was not asked, or not told."""
    _load_ms: float = 0.0
    _peak_rss_mb: float = 0.0
    _outputs: Tensors = field(default_factory=dict)
    _rounds: dict[tuple[int, int], list[list[int]]] = field(default_factory=dict)
    """Latencies in nanoseconds of each round, by (batch, threads)."""
    _joules: dict[tuple[int, int], list[float | None]] = field(default_factory=dict)
    """What each round used; None where the host doesn't tell."""

    @property
    def outputs(self) -> Tensors:
        """Its answers to the evaluation rows; empty before it was asked."""
        return self._outputs

    @property
    def measured(self) -> Measurements:
        """Its measurements, when it has some."""
        assert self.measurements is not None
        return self.measurements

    def unmeasured(self) -> Subject:
        """Return it with its answers, to be timed again."""
        return replace(self, measurements=None, _rounds={}, _joules={})

    def answering(self, outputs: Tensors) -> Subject:
        """Return it with other answers, such as those to some of the rows, to be timed."""
        return replace(self.unmeasured(), _outputs=outputs)


def answer(source: Subject, evaluation: Path, scratch: Path, measure: MeasureSpec) -> None:
    """Let the source model answer the evaluation rows, in a process of its own that then ends.

    Raises:
        HoneError: it can't be loaded, or fails.
    """
    with _blame(source):
        probe = _probe(source, evaluation, scratch)
        try:
            _ask(source, probe, scratch, thread_counts(measure)[0])
        finally:
            probe.close()
    _raise_for_source(source)


def prove(
    subjects: list[Subject],
    evaluation: Path,
    scratch: Path,
    measure: MeasureSpec,
    judge: Judge,
    progress: Callable[[int, int, str], None],
) -> HostNoise:
    """Measure every subject in place; the first is the source model, and a failure of it raises.

    All processes stay loaded while latency is measured, one round after another through all variants, so that a
    noisy neighbor on the host hurts all alike. What already has answered (see `answer`) is timed only.

    Args:
        subjects: the source first.
        evaluation: what `hone.data.save_dataset` wrote.
        scratch: a folder for outputs and logs.
        measure: batch sizes, thread counts, rounds.
        judge: scores the outputs.
        progress: called with (steps done, steps in all, what).

    Returns:
        How steady the host was while latency was measured.
    """
    labels, started = read_dataset(evaluation).labels, time.monotonic()
    threads = thread_counts(measure)
    steps = len(subjects) + measure.rounds * len(threads)
    with ExitStack() as stack:
        probes: dict[str, ProbeProcess] = {}
        for index, subject in enumerate(subjects):
            progress(index, steps, f"quality of {subject.name}")
            with _blame(subject):
                probe = _probe(subject, evaluation, scratch)
                stack.callback(probe.close)
                _ask(subject, probe, scratch, threads[0])
                probes[subject.name] = probe
        _raise_for_source(subjects[0])
        watch = HostWatch()
        _time_all(
            subjects, probes, measure, threads, watch, lambda done, what: progress(len(subjects) + done, steps, what)
        )
        _profile_all(subjects, probes, (measure.batches[0], threads[-1]), Profiler(started))
    _raise_for_source(subjects[0])
    for subject in subjects:
        if not subject.failure:
            with _blame(subject):
                _conclude(subject, subjects[0], judge, labels)
    _raise_for_source(subjects[0])
    return watch.noise()


def check_energy(loaded: LoadedRecipe, powercap: Path = POWERCAP) -> None:
    """Refuse a limit that this host can't measure: no variant would ever meet it.

    Raises:
        RecipeError: saying why not.
    """
    cpu, gpu = energy_meter(powercap=powercap), energy_meter(gpu=True, powercap=powercap)
    if loaded.recipe.budget.energy_j is not None and not (cpu.counters or gpu.counters):
        raise RecipeError(f"{loaded.path}: budget.energy_j: energy is {cpu.describe()}")


def thread_counts(measure: MeasureSpec) -> list[int]:
    """Return the thread counts to measure on this host, each once, in the recipe's order."""
    return list(dict.fromkeys(resolve_threads(threads) for threads in measure.threads))


def resolve_threads(threads: int | str) -> int:
    return cores() if threads == "all" else min(int(threads), cores())


class _blame:  # noqa: N801 - a context manager, used like a function
    """Record an error as the subject's own failure; the others go on."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, HoneError):
            self._subject.failure = str(error)
            return True
        return False


def _raise_for_source(source: Subject) -> None:
    if source.failure:
        raise HoneError(f"the source model can't be measured: {source.failure}")


def _probe(subject: Subject, evaluation: Path, scratch: Path) -> ProbeProcess:
    return ProbeProcess(subject.name, subject.artifact.path, evaluation, scratch / f"{subject.name}.log")


def _ask(subject: Subject, probe: ProbeProcess, scratch: Path, threads: int) -> None:
    """Wait until the probe is ready; let it answer the evaluation rows, unless the subject has its answers."""
    probe.answer()
    if subject.outputs:
        return
    loaded = probe.ask("load", threads=threads)
    subject._outputs, result = probe.answers(scratch / f"{subject.name}.npz", EVALUATION_BATCH)
    subject.runtime, subject.version = loaded["describe"], loaded["version"]
    subject._load_ms = loaded["load_ms"]
    subject._peak_rss_mb = result["peak_rss_mb"]


def _time_all(
    subjects: list[Subject],
    probes: dict[str, ProbeProcess],
    measure: MeasureSpec,
    threads: list[int],
    watch: HostWatch,
    progress: Callable[[int, str], None],
) -> None:
    done = 0
    for count in threads:
        alive = [subject for subject in subjects if not subject.failure]
        for subject in alive:
            with _blame(subject):
                probes[subject.name].ask("load", threads=count)
        for turn in range(measure.rounds):
            progress(done, f"latency, {count} thread{'s' if count > 1 else ''}, round {turn + 1}/{measure.rounds}")
            watch.tick()
            # Each round starts with another variant, so that none always follows the same one.
            for subject in alive[turn % len(alive) :] + alive[: turn % len(alive)]:
                _time_one(subject, probes[subject.name], measure, count)
            done += 1


def _time_one(subject: Subject, probe: ProbeProcess, measure: MeasureSpec, threads: int) -> None:
    for batch in measure.batches:
        if subject.failure:
            return
        with _blame(subject):
            answer = probe.ask("time", batch=batch, milliseconds=measure.round_ms)
            subject._rounds.setdefault((batch, threads), []).append(answer["latencies_ns"])
            subject._joules.setdefault((batch, threads), []).append(answer["joules"])


def _profile_all(
    subjects: list[Subject], probes: dict[str, ProbeProcess], at: tuple[int, int], profiler: Profiler
) -> None:
    """Profile the variants, and last the source, whose profiler may be slow, while that costs next to nothing.

    Args:
        subjects: the source first.
        probes: by name, with the threads of `at` loaded.
        at: rows of a batch and threads.
        profiler: knows what was spent.
    """
    for subject in [*subjects[1:], subjects[0]]:
        rounds = subject._rounds.get(at)
        if rounds and not subject.failure:
            call_s = float(np.median(np.concatenate(rounds))) / 1e9
            probe = probes[subject.name]
            subject.profile = profiler.profile(subject.artifact, probe, at[0], subject._load_ms / 1e3, call_s)


def _conclude(subject: Subject, source: Subject, judge: Judge, labels: np.ndarray | None) -> None:
    value = judge.score(subject._outputs, source._outputs, labels)
    reference = judge.score(source._outputs, source._outputs, labels)
    largest, mean = differences(subject._outputs, source._outputs)
    subject.measurements = Measurements(
        quality=Quality(
            metric=judge.name,
            higher_is_better=judge.higher_is_better,
            value=value,
            source=reference,
            drop=judge.drop(reference, value),
            max_difference=largest,
            mean_difference=mean,
            rows=len(next(iter(source._outputs.values()))),
        ),
        latency=tuple(
            _latency(key, rounds, subject._joules.get(key, ())) for key, rounds in sorted(subject._rounds.items())
        ),
        peak_rss_mb=round(subject._peak_rss_mb, 1),
        load_ms=round(subject._load_ms, 3),
        size_mb=round(subject.artifact.manifest.size_bytes / 1e6, 6),
        host={**host(), "runtime": f"{subject.artifact.runtime} {subject.version}"},
    )


def _latency(key: tuple[int, int], rounds: list[list[int]], joules: Sequence[float | None]) -> Latency:
    """The median of the rounds' medians, which one disturbed round doesn't move; in tails each round counts alike.

    Energy is that of all rounds over their rows: its counters are too coarse for one round's figure to mean much.
    """
    batch, threads = key
    milliseconds = [np.asarray(latencies) / 1e6 for latencies in rounds]
    medians = [round(float(np.median(values)), 6) for values in milliseconds]
    p50 = float(np.median(medians))
    low, high = median_interval(medians)
    calls, known = sum(len(values) for values in milliseconds), [used for used in joules if used is not None]
    p95, p99 = round_percentiles(milliseconds, (95, 99))
    return Latency(
        batch=batch,
        threads=threads,
        p50=round(p50, 6),
        p50_low=low,
        p50_high=high,
        p95=round(p95, 6),
        p99=round(p99, 6),
        mean=round(float(np.mean([values.mean() for values in milliseconds])), 6),
        rows_per_s=round(batch * 1e3 / p50, 3),
        calls=calls,
        joules_per_1000_rows=round(1000 * sum(known) / (calls * batch), 6)
        if known and len(known) == len(joules)
        else None,
        rounds=tuple(medians),
    )
