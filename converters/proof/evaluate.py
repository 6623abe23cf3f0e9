"""Prove variants: each in a fresh process, quality against the source, latency in interleaved turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hone.artifact import Measurements, Quality
from hone.data import read_dataset
from hone.errors import HoneError, RecipeError
from hone.hardware import cores, host
from hone.hardware.energy import POWERCAP, energy_meter
from hone.recipe import LoadedRecipe, MeasureSpec
from hone.signature import Tensors

from .differences import differences
from .disturbance import HostNoise, HostWatch
from .judge import Judge, at
from .probe_process import ProbeProcess
from .profiling import Profiler
from .race.referee import Referee, Seen
from .race.timing import Timing, latency_of, stages_of
from .subject import Subject, blame

EVALUATION_BATCH = 32


def answer(source: Subject, evaluation: Path, scratch: Path, measure: MeasureSpec) -> None:
    """Let the source model answer the evaluation rows, in a process of its own that then ends.

    Raises:
        HoneError: it can't be loaded, or fails.
    """
    with blame(source):
        probe = _probe(source, evaluation, scratch)
        try:
            probe.answer()
            _load(source, probe, thread_counts(measure)[0])
            source._outputs = _evaluated(source, probe, scratch / f"{source.name}.npz")
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
    referee: Referee | None = None,
) -> HostNoise:
    """Measure every subject in place; the first is the source model, and a failure of it raises.

    All processes stay loaded while latency is measured, one turn after another through all variants, so that a
    noisy neighbor on the host hurts all alike. What already has answered (see `answer`) is timed only.

    Args:
        subjects: the source first.
        evaluation: what `hone.data.save_dataset` wrote.
        scratch: a folder for outputs and logs.
        measure: batch sizes, thread counts, turns.
        judge: scores the outputs.
        progress: called with (steps done, steps in all, what).
        referee: stops what can't win; None: everything is measured in full.

    Returns:
        How steady the host was while latency was measured.
    """
    dataset, source, started = read_dataset(evaluation), subjects[0], time.monotonic()
    stages = stages_of(measure, thread_counts(measure), referee)
    steps = len(subjects) + sum(stage.turns for stage in stages)
    with ExitStack() as stack:
        probes: dict[str, ProbeProcess] = {}
        asking = _Asking(source, scratch, thread_counts(measure)[0], judge, dataset.labels, dataset.rows)
        for index, subject in enumerate(subjects):
            subject.stopped = referee.waits(subject.name) if referee and index else ""
            if subject.stopped:
                continue
            progress(index, steps, f"quality of {subject.name}")
            with blame(subject):
                probe = stack.enter_context(closing(_probe(subject, evaluation, scratch)))
                probe.answer()
                if asking.ask(subject, probe, referee if index else None):
                    probes[subject.name] = probe
        _raise_for_source(source)
        timing = Timing(subjects, probes, measure, watch := HostWatch(), referee, asking.loaded)
        timing.run(stages, lambda done, what: progress(len(subjects) + done, steps, what))
        _profile_all(subjects, probes, measure.batches, timing.threads, Profiler(started))
    _raise_for_source(source)
    for subject in subjects:
        _conclude(subject)
    return watch.noise()


def check_energy(loaded: LoadedRecipe, powercap: Path = POWERCAP) -> None:
    """Refuse a limit that this host can't measure: no variant would ever meet it.

    Raises:
        RecipeError: saying why not.
    """
    if loaded.recipe.budget.energy_j is None:
        return
    cpu, gpu = energy_meter(powercap=powercap), energy_meter(gpu=True, powercap=powercap)
    if not (cpu.counters or gpu.counters):
        raise RecipeError(f"{loaded.path}: budget.energy_j: energy is {cpu.describe()}")


def thread_counts(measure: MeasureSpec) -> list[int]:
    """Return the thread counts to measure on this host, each once, in the recipe's order."""
    return list(dict.fromkeys(resolve_threads(threads) for threads in measure.threads))


def resolve_threads(threads: int | str) -> int:
    if threads == 1:
        return 1
    return cores() if threads == "all" else min(int(threads), cores())


def _raise_for_source(source: Subject) -> None:
    if source.failure:
        raise HoneError(f"the source model can't be measured: {source.failure}")


def _profile_all(
    subjects: Sequence[Subject],
    probes: Mapping[str, ProbeProcess],
    batches: Sequence[int],
    threads: Mapping[str, int],
    profiler: Profiler,
) -> None:
    """Profile the variants, and last the source, whose profiler may be slow, while that costs next to nothing.

    Args:
        subjects: the source first.
        probes: by name, of those that were timed.
        batches: sizes; each is profiled at the first that it was timed at.
        threads: by name, that each is loaded for: those that were timed at last.
        profiler: knows what was spent.
    """
    for subject in [*subjects[1:], subjects[0]]:
        timed = [size for size in batches if (size, threads.get(subject.name)) in subject._rounds]
        if timed and not subject.failure:
            rounds = subject._rounds[timed[0], threads[subject.name]]
            call_s = float(np.median(np.concatenate(rounds))) / 1e9
            probe = probes[subject.name]
            subject.profile = profiler.profile(subject.artifact, probe, timed[0], subject._load_ms / 1e3, call_s)


def _conclude(subject: Subject) -> None:
    if subject._untimed is not None and not subject.failure:
        latencies = tuple(
            latency_of(key, rounds, subject._joules.get(key, ())) for key, rounds in sorted(subject._rounds.items())
        )
        subject.measurements = subject._untimed.model_copy(update={"latency": latencies})


def _probe(subject: Subject, evaluation: Path, scratch: Path) -> ProbeProcess:
    return ProbeProcess(subject.name, subject.artifact.path, evaluation, scratch / f"{subject.name}.log")


def _load(subject: Subject, probe: ProbeProcess, threads: int) -> None:
    loaded = probe.ask("load", threads=threads)
    subject.runtime, subject.version = loaded["describe"], loaded["version"]
    subject._load_ms = loaded["load_ms"]


def _evaluated(subject: Subject, probe: ProbeProcess, out: Path, rows: np.ndarray | None = None) -> Tensors:
    """Return the answers to rows, in their order; None: to all."""
    answers, said = probe.answers(out, EVALUATION_BATCH, rows)
    subject._peak_rss_mb = said["peak_rss_mb"]
    return subject.answered(answers)


@dataclass(frozen=True)
class _Asking:
    """Asks subjects for their answers, and scores these."""

    source: Subject
    scratch: Path
    threads: int
    judge: Judge
    labels: np.ndarray | None
    rows: int
    loaded: dict[str, int] = field(default_factory=dict)
    """For how many threads each is loaded that was asked."""

    def ask(self, subject: Subject, probe: ProbeProcess, referee: Referee | None) -> bool:
        """Let a subject answer, unless it has answered; False when the time for it was over before it had."""
        seen, rows = None, np.arange(self.rows)
        got = subject.outputs
        if not got:
            _load(subject, probe, self.threads)
            self.loaded[subject.name] = self.threads
            pieces = referee.pieces(self.rows) if referee else None
            if referee is None or pieces is None:
                got = _evaluated(subject, probe, self.scratch / f"{subject.name}.npz")
            else:
                got, rows, seen = self._in_pieces(subject, probe, referee, pieces)
                if subject.stopped and seen is None:
                    return False
            subject._outputs, subject._some = ({}, got) if seen else (got, {})
        quality = self._quality(got, rows, seen)
        subject._untimed = self._measured(subject, quality)
        if referee is not None:
            referee.enters(subject.name, got, subject._untimed)
        return True

    def _in_pieces(
        self, subject: Subject, probe: ProbeProcess, referee: Referee, pieces: Iterator[np.ndarray]
    ) -> tuple[Tensors, np.ndarray, Seen | None]:
        """Return answers, the numbers of their rows, and what was seen of it when these are not all."""
        parts: list[Tensors] = []
        rows = np.arange(0)
        for piece in pieces:
            parts.append(_evaluated(subject, probe, self.scratch / f"{subject.name}.npz", piece))
            rows = np.concatenate([rows, piece])
            got = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            parts = [got]
            if seen := referee.look(subject.name, got, rows):
                subject.stopped = seen.reason
                return got, rows, seen
            if len(rows) < self.rows and referee.is_late():
                subject.stopped = f"not proven: the time was over after {len(rows)} of {self.rows} rows"
                return got, rows, None
        return at(got, np.argsort(rows)), np.arange(self.rows), None

    def _quality(self, got: Tensors, rows: np.ndarray, seen: Seen | None) -> Quality:
        source = self.source.outputs
        if seen is not None:
            value, reference, source = seen.value, seen.source, at(source, rows)
        else:
            value = self.judge.score(got, source, self.labels)
            known = self.source._untimed
            reference = known.quality.value if known else value
        names = self.source.artifact.signature.output_names
        largest, mean = differences(got, {name: source[name] for name in names})
        return Quality(
            metric=self.judge.name,
            higher_is_better=self.judge.higher_is_better,
            value=value,
            source=reference,
            drop=self.judge.drop(reference, value),
            max_difference=largest,
            mean_difference=mean,
            rows=len(rows),
        )

    def _measured(self, subject: Subject, quality: Quality) -> Measurements:
        return Measurements(
            quality=quality,
            latency=(),
            peak_rss_mb=round(subject._peak_rss_mb, 1),
            load_ms=round(subject._load_ms, 3),
            size_mb=round(subject.artifact.manifest.size_bytes / 1e6, 6),
            host={**host(), "runtime": f"{subject.artifact.runtime} {subject.version}"},
        )
