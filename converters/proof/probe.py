"""The process that proves one artifact: `python -m converters.proof.probe`, driven by JSON lines on its standard input.

It imports nothing but the artifact's runtime, so that its memory is what a service would need. Each command is one
line and gets one line back: `{"ok": ...}` or `{"error": "..."}`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from hone import runtimes
from hone.artifact import Artifact
from hone.data import read_dataset
from hone.errors import one_line
from hone.hardware import cores
from hone.hardware.energy import POWERCAP, EnergyMeter, energy_meter
from hone.runtimes.base import Runtime
from hone.runtimes.onnx.providers import on_gpu
from hone.signature import TensorSpec, as_text

from .robustness.rows import Case, Disturbed

MAX_CALLS = 20_000
MIN_CALLS = 2
WARM_UP_NS = 10_000_000
"""Long enough for the threads of the variant before, which spin for a moment after a call, to go to sleep."""


class Probe:
    """One artifact in this process, with its evaluation rows."""

    def __init__(self, artifact: Path, evaluation: Path, powercap: Path = POWERCAP) -> None:
        self._powercap = powercap
        self._artifact = Artifact.open(artifact)
        self._data = read_dataset(evaluation)
        self._runtime: Runtime | None = None
        self._disturbed: Disturbed | None = None
        self._affinity = psutil.Process().cpu_affinity() if hasattr(psutil.Process, "cpu_affinity") else None

    def load(self, threads: int, **options: Any) -> dict[str, Any]:
        """Load the artifact for a number of threads; give back what an earlier load holds first.

        Args:
            threads: of one inference.
            options: of the runtime, beside those that the artifact has.
        """
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None
        self._limit_cores(threads)
        started = time.perf_counter()
        asked = {**self._artifact.manifest.runtime_options, **options}
        self._runtime = runtimes.load(self._artifact.with_manifest(runtime_options=asked), threads)
        return {"load_ms": (time.perf_counter() - started) * 1e3, **self._about(self._runtime)}

    @staticmethod
    def _about(runtime: Runtime) -> dict[str, str]:
        return {"describe": runtime.describe(), "version": runtime.availability().version}

    def _limit_cores(self, threads: int) -> None:
        """A runtime that can't limit its threads is limited by the cores that its process may use."""
        adjustable = runtimes.runtime_class(self._artifact.runtime).threads_adjustable
        if self._affinity and not adjustable:
            psutil.Process().cpu_affinity(self._affinity[:threads])

    def evaluate(self, out: str, batch: int, rows: list[int] | None = None) -> dict[str, Any]:
        """Run evaluation rows, write the outputs to an .npz and report the process's peak memory.

        Args:
            out: the file.
            batch: rows of a call.
            rows: their numbers, in the order in which they are run; None: all, as they stand.
        """
        data = self._data if rows is None else self._data.of(np.asarray(rows))
        return {"rows": self._answer(data.batches(batch), out), "peak_rss_mb": self._peak_rss_mb()}

    def _peak_rss_mb(self) -> float:
        own = self._runtime.processes() if self._runtime is not None else ()
        return peak_rss_mb() + sum(peak_rss_mb(process) for process in own)

    def disturbed(
        self, out: str, kind: str, severity: int, inputs: list[dict[str, Any]], rows: int | None, seconds: float
    ) -> dict[str, Any]:
        """Run evaluation rows that are disturbed, for so long at most, and write the outputs to an .npz.

        Args:
            out: the file.
            kind, severity: of the disturbance.
            inputs: the source model's: every variant gets the same rows.
            rows: at most; None: all.
            seconds: after which no further batch is begun.

        Returns:
            How many rows were run: the first in the order of `Disturbed`.
        """
        if self._disturbed is None:
            self._disturbed = Disturbed([TensorSpec.model_validate(spec) for spec in inputs], self._data.inputs)
        batches, end = self._disturbed.batches(Case(kind, severity), rows), time.monotonic() + seconds
        return {"rows": self._answer(chain(islice(batches, 1), _until(end, batches)), out)}

    def _answer(self, batches: Iterable[dict[str, np.ndarray]], out: str) -> int:
        """Run rows and write what they are answered; return how many there were."""
        parts: dict[str, list[np.ndarray]] = {}
        count = 0
        for rows in batches:
            count += len(next(iter(rows.values())))
            for name, array in self._run(self._fit(rows)).items():
                parts.setdefault(name, []).append(as_text(array))
        outputs = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        np.savez(out, allow_pickle=False, **outputs)
        return count

    def time(self, batch: int, milliseconds: int) -> dict[str, Any]:
        """Run one batch size for a while; return the latency of each call in nanoseconds, and what all of them used."""
        rows = self._rows(batch)
        warm = time.perf_counter_ns() + WARM_UP_NS
        self._run(rows)
        while time.perf_counter_ns() < warm:
            self._run(rows)
        latencies: list[int] = []
        before = self._meter.read()
        end = time.perf_counter_ns() + milliseconds * 1_000_000
        while len(latencies) < MIN_CALLS or (time.perf_counter_ns() < end and len(latencies) < MAX_CALLS):
            started = time.perf_counter_ns()
            self._run(rows)
            latencies.append(time.perf_counter_ns() - started)
        return {"latencies_ns": latencies, "joules": self._meter.joules(before, self._meter.read())}

    @cached_property
    def _meter(self) -> EnergyMeter:
        return energy_meter(on_gpu(self._artifact), self._powercap)

    def profile(self, folder: str, batch: int, runs: int) -> dict[str, Any]:
        """Run one batch some times with the runtime's profiler on; return what its operators took."""
        assert self._runtime is not None
        return asdict(self._runtime.profile(self._rows(batch), runs, Path(folder)))

    def _rows(self, batch: int) -> dict[str, np.ndarray]:
        """Return `batch` evaluation rows, repeating them when there are fewer."""
        index = np.arange(batch) % self._data.rows
        return self._fit({name: array[index] for name, array in self._data.inputs.items()})

    def _fit(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        specs = self._artifact.signature.inputs
        return {spec.name: spec.fit(rows[spec.name]) for spec in specs}

    def _run(self, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run rows that have been fitted."""
        assert self._runtime is not None
        return self._runtime.run(rows)


def _until(end: float, batches: Iterator[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """Give batches until a time of the monotonic clock."""
    while time.monotonic() < end and (rows := next(batches, None)) is not None:
        yield rows


def peak_rss_mb(process: int | None = None) -> float:
    """Return the peak resident memory of this process, or of another that it started, in MiB.

    Linux keeps it per program image (VmHWM); `getrusage` would count the memory of the process that forked us.
    """
    try:
        for line in Path(f"/proc/{process or 'self'}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    if process is not None:  # of others there is only what they hold now
        return float(psutil.Process(process).memory_info().rss) / 2**20 if psutil.pid_exists(process) else 0.0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def main() -> None:
    # Frameworks print to standard output; the answers go to a copy of it that they don't know.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    probe: Probe | None = None
    for line in sys.stdin:
        command = json.loads(line)
        name = command.pop("command")
        try:
            if name == "open":
                probe = Probe(Path(command["artifact"]), Path(command["evaluation"]))
                answer: dict[str, Any] = {"cores": cores()}
            else:
                method: Callable[..., dict[str, Any]] = getattr(probe, name)
                answer = method(**command)
            message = {"ok": answer}
        except Exception as error:  # noqa: BLE001 - the main process reports it
            message = {"error": {"message": one_line(error), "kind": type(error).__name__}}
        answers.write(json.dumps(message) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
