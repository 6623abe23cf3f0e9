"""What is under proof: the source, or a variant, with what was found of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hone.artifact import Artifact, Measurements
from hone.errors import HoneError
from hone.signature import Tensors


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
    stopped: str = ""
    """Why it was not measured in full, or not at all; empty when it was."""
    _load_ms: float = 0.0
    _peak_rss_mb: float = 0.0
    _outputs: Tensors = field(default_factory=dict)
    _untimed: Measurements | None = None
    """Its measurements before any latency."""
    _rounds: dict[tuple[int, int], list[list[int]]] = field(default_factory=dict)
    """Latencies in nanoseconds of each round, by (batch, threads)."""

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
        return replace(self, measurements=None, stopped="", _untimed=None, _rounds={})

    def answering(self, outputs: Tensors) -> Subject:
        """Return it with other answers, such as those to some of the rows, to be timed."""
        return replace(self.unmeasured(), _outputs=outputs)


class blame:  # noqa: N801 - a context manager, used like a function
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
