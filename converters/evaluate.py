"""Prove variants: each in a fresh process, quality against the source, latency in interleaved rounds."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from converters.metrics import Metric, Outputs, differences
from hone.artifact import Artifact, Latency, Measurements, Quality
from hone.data import read_dataset
from hone.errors import HoneError, PassError
from hone.hardware import cores, host
from hone.recipe import MeasureSpec

EVALUATION_BATCH = 32


@dataclass
class Subject:
    """A variant under proof."""

    name: str
    artifact: Artifact
    failure: str = ""
    measurements: Measurements | None = None
    runtime: str = ""
    _load_ms: float = 0.0
    _peak_rss_mb: float = 0.0
    _outputs: Outputs = field(default_factory=dict)
    _rounds: dict[tuple[int, int], list[list[int]]] = field(default_factory=dict)
    """Latencies in nanoseconds of each round, by (batch, threads)."""


class ProbeProcess:
    """A `converters.probe` process for one artifact."""

    def __init__(self, name: str, artifact: Path, evaluation: Path, log: Path) -> None:
        self._name = name
        self._log = log
        with log.open("wb") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "converters.probe"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        self._send({"command": "open", "artifact": str(artifact), "evaluation": str(evaluation)})

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to the last command.

        Raises:
            PassError: the command failed, or the process died.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise PassError(f"its process {self._death()}")
        message = json.loads(line)
        if "error" in message:
            raise PassError(message["error"]["message"])
        return dict(message["ok"])

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        self._send({"command": command, **arguments})
        return self.answer()

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PassError(f"its process {self._death()}") from None

    def _death(self) -> str:
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            return f"was killed by {name}" + (": the host ran out of memory" if name == "SIGKILL" else "")
        tail = self._log.read_text(errors="replace").strip().splitlines()
        return f"ended with status {code}: {tail[-1] if tail else 'no message'}"

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


def prove(
    subjects: list[Subject],
    evaluation: Path,
    scratch: Path,
    measure: MeasureSpec,
    metric: Metric,
    progress: Callable[[int, int, str], None],
) -> None:
    """Measure every subject in place; the first is the source model, and a failure of it raises.

    All processes stay loaded while latency is measured, one round after another through all variants, so that a
    noisy neighbor on the host hurts all alike.

    Args:
        subjects: the source first.
        evaluation: what `hone.data.save_dataset` wrote.
        scratch: a folder for outputs and logs.
        measure: batch sizes, thread counts, rounds.
        metric: scores the outputs.
        progress: called with (steps done, steps in all, what).
    """
    labels = read_dataset(evaluation).labels
    threads = thread_counts(measure)
    steps = len(subjects) + measure.rounds * len(threads)
    with ExitStack() as stack:
        probes: dict[str, ProbeProcess] = {}
        for index, subject in enumerate(subjects):
            progress(index, steps, f"quality of {subject.name}")
            with _blame(subject):
                probe = ProbeProcess(subject.name, subject.artifact.path, evaluation, scratch / f"{subject.name}.log")
                stack.callback(probe.close)
                _evaluate(subject, probe, scratch / f"{subject.name}.npz", threads[0])
                probes[subject.name] = probe
        _raise_for_source(subjects[0])
        _time_all(subjects, probes, measure, threads, lambda done, what: progress(len(subjects) + done, steps, what))
    _raise_for_source(subjects[0])
    for subject in subjects:
        if not subject.failure:
            with _blame(subject):
                _conclude(subject, subjects[0], metric, labels)


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


def _evaluate(subject: Subject, probe: ProbeProcess, out: Path, threads: int) -> None:
    probe.answer()
    loaded = probe.ask("load", threads=threads)
    result = probe.ask("evaluate", out=str(out), batch=EVALUATION_BATCH)
    subject.runtime = loaded["describe"]
    subject._load_ms = loaded["load_ms"]
    subject._peak_rss_mb = result["peak_rss_mb"]
    with np.load(out, allow_pickle=False) as archive:
        subject._outputs = {name: archive[name] for name in archive.files}


def _time_all(
    subjects: list[Subject],
    probes: dict[str, ProbeProcess],
    measure: MeasureSpec,
    threads: list[int],
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


def _conclude(subject: Subject, source: Subject, metric: Metric, labels: np.ndarray | None) -> None:
    value = metric.score(subject._outputs, source._outputs, labels)
    reference = metric.score(source._outputs, source._outputs, labels)
    largest, mean = differences(subject._outputs, source._outputs)
    subject.measurements = Measurements(
        quality=Quality(
            metric=metric.name,
            higher_is_better=metric.higher_is_better,
            value=value,
            source=reference,
            drop=metric.drop(reference, value),
            max_difference=largest,
            mean_difference=mean,
            rows=len(next(iter(source._outputs.values()))),
        ),
        latency=tuple(_latency(key, rounds) for key, rounds in sorted(subject._rounds.items())),
        peak_rss_mb=round(subject._peak_rss_mb, 1),
        load_ms=round(subject._load_ms, 3),
        size_mb=round(subject.artifact.manifest.size_bytes / 1e6, 6),
        host=host(),
    )


def _latency(key: tuple[int, int], rounds: list[list[int]]) -> Latency:
    """Percentiles over all calls; throughput as the median over rounds, which one disturbed round doesn't move."""
    batch, threads = key
    milliseconds = np.concatenate([np.asarray(latencies) for latencies in rounds]) / 1e6
    p50, p95, p99 = (round(float(value), 6) for value in np.percentile(milliseconds, [50, 95, 99]))
    throughput = float(np.median([batch * len(latencies) * 1e9 / sum(latencies) for latencies in rounds]))
    return Latency(
        batch=batch,
        threads=threads,
        p50=p50,
        p95=p95,
        p99=p99,
        mean=round(float(milliseconds.mean()), 6),
        rows_per_s=round(throughput, 3),
        calls=len(milliseconds),
    )
