"""What is under proof: the source, or a variant, with what was found of it so far."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hone.artifact import Artifact, Measurements
from hone.errors import HoneError
from hone.signature import Tensors
from hone.steps.pipeline import ReadySteps

from .profiling import ShortProfile


@dataclass
class Subject:
    """A variant under proof."""

    name: str
    artifact: Artifact
    failure: str = ""
    steps: ReadySteps | None = None
    """The steps around it: what they answer counts among its answers, under names that no output has."""
    measurements: Measurements | None = None
    runtime: str = ""
    version: str = ""
    """Of the runtime."""
    profile: ShortProfile | None = None
    """Where its time goes; None: that was not asked, or not told."""
    stopped: str = ""
    """Why it was not measured in full, or not at all; empty when it was."""
    _load_ms: float = 0.0
    _peak_rss_mb: float = 0.0
    _outputs: Tensors = field(default_factory=dict)
    _some: Tensors = field(default_factory=dict)
    """Its answers to the rows that it was asked for, of one that was stopped before it had answered all."""
    _untimed: Measurements | None = None
    """Its measurements before any latency."""
    _rounds: dict[tuple[int, int], list[list[int]]] = field(default_factory=dict)
    """Latencies in nanoseconds of each round, by (batch, threads)."""
    _joules: dict[tuple[int, int], list[float | None]] = field(default_factory=dict)
    """What each round used; None where the host doesn't tell."""

    @property
    def output_names(self) -> list[str]:
        """Of its answers: the model's outputs, then what steps make of them."""
        names = self.artifact.signature.output_names
        return [*names, *(name for name in (self.steps.outputs if self.steps else ()) if name not in names)]

    def answered(self, outputs: Tensors) -> Tensors:
        """Return the model's outputs with what steps make of them."""
        made = self.steps.after(outputs) if self.steps else {}
        return {**outputs, **{name: array for name, array in made.items() if name not in outputs}}

    @property
    def outputs(self) -> Tensors:
        """Its answers to the evaluation rows; empty before it was asked."""
        return self._outputs

    @property
    def some_outputs(self) -> Tensors:
        """Its answers to those rows that it was asked for."""
        return self._outputs or self._some

    @property
    def measured(self) -> Measurements:
        """Its measurements, when it has some."""
        assert self.measurements is not None
        return self.measurements

    def unmeasured(self) -> Subject:
        """Return it with its answers, to be timed again."""
        return replace(self, measurements=None, stopped="", _some={}, _untimed=None, _rounds={}, _joules={})

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
