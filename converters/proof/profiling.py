"""Where each variant's time goes, in short: a few runs with the profiler, in the process that has it loaded already.

What a variant costs is known by then: how long it takes to load, and to answer. Profiles that would cost more than a
small share of the proof are left out; `hone profile` takes them later.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from hone.artifact import Artifact
from hone.errors import HoneError
from hone.profiles.measure import Taken, findings, operators
from hone.profiles.record import OperatorTime, ProfileFinding
from hone.runtimes import runtime_class
from hone.runtimes.trace import WARM_UPS, NodeTime, Trace

from .probe_process import ProbeProcess

SHARE = 0.02
"""Of the time of the proof, that profiles may take."""
RUNS = 5
LOADS = 3
"""Times that a profile costs as much as loading: a session of its own, which writes its graph, too."""
SOURCE_S = 2.0
"""That torch's profiler takes to start."""
ONNX_S = 0.4
"""That the package takes to import, which reads the graphs that were run."""
SHOWN = 5
"""Operators of a variant that a report has."""


@dataclass(frozen=True)
class ShortProfile:
    """What a report says of a variant's time: the operators that take most of it, and what was found."""

    operators: tuple[OperatorTime, ...]
    findings: tuple[ProfileFinding, ...]


@dataclass
class Profiler:
    """Takes profiles while they are cheap.

    Attributes:
        started: when the proof began.
        clock: seconds that only rise.
    """

    started: float
    clock: Callable[[], float] = time.monotonic
    _spent_s: float = field(default=0.0, init=False)

    def profile(
        self, artifact: Artifact, probe: ProbeProcess, batch: int, load_s: float, call_s: float
    ) -> ShortProfile | None:
        """Return a variant's profile, or None: it would cost too much, or its runtime doesn't tell.

        Args:
            artifact: that the probe has loaded.
            probe: its process.
            batch: rows of a run.
            load_s: that it took to load.
            call_s: of a run.
        """
        now = self.clock()
        expected = SOURCE_S if runtime_class(artifact.runtime).baseline else 0.0
        expected += 0.0 if "onnx" in sys.modules else ONNX_S
        expected += LOADS * load_s + (RUNS + WARM_UPS) * call_s
        if self._spent_s + expected > SHARE * (now - self.started):
            return None
        try:
            return _profile(artifact, probe, batch, call_s)
        except (HoneError, OSError):
            return None  # its measurements stand without it
        finally:
            self._spent_s += self.clock() - now


def _profile(artifact: Artifact, probe: ProbeProcess, batch: int, call_s: float) -> ShortProfile:
    with tempfile.TemporaryDirectory(prefix="hone-profile-") as folder:
        answer = probe.ask("profile", folder=folder, batch=batch, runs=RUNS)
        seen = tuple(NodeTime(**node) for node in answer["nodes"])
        trace = Trace(**{**answer, "nodes": seen, "run_seconds": tuple(answer["run_seconds"])})
        taken = Taken(call_s, trace, RUNS)
        found, _ = findings(artifact, taken, batch, Path(folder))
    return ShortProfile(operators(taken)[:SHOWN], found)
