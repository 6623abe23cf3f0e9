"""What a runtime is, and the register of all of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from hone.artifact import Artifact
from hone.errors import ArtifactError, UnavailableError
from hone.runtimes.trace import Trace
from hone.signature import Signature

_REGISTER: dict[str, type[Runtime]] = {}


@dataclass(frozen=True)
class Availability:
    """Whether this host can use a runtime, and if not, what is missing and how to get it."""

    usable: bool
    version: str = ""
    detail: str = ""
    reason: str = ""
    remedy: str = ""


BASELINE = "baseline only, not served"
"""What is said of a runtime whose models are not stored."""


def missing(extra: str, **packages: str) -> Availability | None:
    """Return what is missing when a module isn't installed, else None.

    Args:
        extra: of Hone, which brings the packages.
        packages: their names, by the modules that are looked for.
    """
    for module, package in packages.items():
        if find_spec(module) is None:
            return Availability(False, reason=f"{package} is not installed", remedy=f"pip install 'hone[{extra}]'")
    return None


class RuntimeOptions(BaseModel):
    """What an artifact may tell its runtime. A runtime that takes options has a subclass; anything else is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class UserCode(RuntimeOptions):
    """The user's own Python that a model needs: a function, the folder of its module, and a hash of the code."""

    loader: str | None = None
    root: str | None = None
    code: str | None = None

    @model_validator(mode="after")
    def _has_root(self) -> UserCode:
        if self.loader and not self.root:
            raise ValueError("a loader needs the folder of its module, 'root'")
        return self


class Runtime(ABC):
    """An artifact in memory, ready to run.

    Instances are used by one thread at a time unless `concurrent` says otherwise.
    """

    name: ClassVar[str]
    module: ClassVar[str] = ""
    """The Python module of the framework; `hone doctor` imports it to see whether it loads."""
    concurrent: ClassVar[bool] = False
    """True when `run` may be called from several threads at once."""
    threads_adjustable: ClassVar[bool] = True
    """False when the framework can't limit its threads; a measurement then limits the process's cores instead."""
    baseline: ClassVar[bool] = False
    """True when it runs models as they were trained, for variants to be compared with; these are not stored."""
    waits: ClassVar[bool] = False
    """True when a call waits for another process: a service makes none on its event loop."""
    remark: ClassVar[str] = ""
    """What reports and services say of all its models, beside their figures."""
    options: ClassVar[type[RuntimeOptions]] = RuntimeOptions
    """What `runtime_options` of its artifacts may hold."""

    @abstractmethod
    def __init__(self, artifact: Artifact, threads: int | None = None) -> None: ...

    @classmethod
    @abstractmethod
    def availability(cls) -> Availability:
        """Say whether this host can use the runtime; must be cheap and must not raise."""

    @classmethod
    def check_host(cls, artifact: Artifact) -> str:
        """Return why this host can't run this artifact, or an empty string. Overridden where hardware matters."""
        return ""

    @classmethod
    def code_in(cls, artifact: Artifact) -> str:
        """Return what code an artifact runs beyond its runtime's own, in words that follow 'it', or an empty string.

        Overridden where loading or running an artifact can run what its author wrote. It is derived from what the
        artifact makes the runtime do, never from what it says of itself.
        """
        return ""

    @classmethod
    def require(cls) -> None:
        """Raise UnavailableError when this host can't use the runtime."""
        state = cls.availability()
        if not state.usable:
            raise UnavailableError(state.reason, state.remedy)

    @abstractmethod
    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run one batch.

        Args:
            inputs: arrays by input name, in the dtypes and shapes of the artifact's signature.

        Returns:
            Arrays by output name, in signature order; axis 0 is the batch where the signature says so.

        Raises:
            InputError: the values are not ones that the model can compute with, such as an index that is out of range.
        """

    @abstractmethod
    def describe(self) -> str:
        """One line for people: the framework, its version and where it computes."""

    @property
    def problem(self) -> str:
        """Why it can't answer now, though it will before long; empty when it can. A service isn't ready meanwhile."""
        return ""

    def processes(self) -> tuple[int, ...]:
        """Return the ids of processes of its own: their memory is the model's, too."""
        return ()

    def profile(self, inputs: Mapping[str, np.ndarray], runs: int, folder: Path) -> Trace:
        """Run a batch some times, as it is served, and tell what each operator took.

        Overridden where the framework has a profiler.

        Args:
            inputs: as `run` takes them.
            runs: after a few that warm it up.
            folder: that is there: for the framework's own trace (`hone.runtimes.trace.RAW`), and what else it writes.

        Raises:
            UnavailableError: the framework doesn't tell.
        """
        raise UnavailableError(f"{self.name} doesn't tell the time of operators", "profile another variant")

    def leave_thread(self) -> None:  # noqa: B027 - most runtimes keep nothing by thread
        """Give back what the framework keeps for the calling thread; called before a thread that ran it ends."""

    def close(self) -> None:  # noqa: B027 - most runtimes have nothing to give back
        """Give back what garbage collection alone would not."""


def register(name: str) -> Callable[[type[Runtime]], type[Runtime]]:
    """Register a runtime under the name that artifacts carry in `runtime`."""

    def add(cls: type[Runtime]) -> type[Runtime]:
        cls.name = name
        _REGISTER[name] = cls
        return cls

    return add


def registered() -> dict[str, type[Runtime]]:
    return _REGISTER


def name_outputs(values: Mapping[str, np.ndarray], signature: Signature) -> dict[str, np.ndarray]:
    """Give a model's outputs the names of the signature.

    Names that the model itself uses are matched by name; otherwise outputs are taken in order.

    Raises:
        ArtifactError: the signature names an output that the model doesn't have.
    """
    names = signature.output_names
    if not names:
        return dict(values)
    return {name: values[own] for name, own in zip(names, picked_outputs(list(values), signature), strict=True)}


def picked_outputs(own: list[str], signature: Signature) -> list[str]:
    """Return which of a model's outputs are those of the signature, in its order; all when it names none.

    Raises:
        ArtifactError: the signature names an output that the model doesn't have.
    """
    names = signature.output_names
    if not names:
        return own
    if set(names) <= set(own):
        return names
    if len(names) != len(own):
        raise ArtifactError(
            f"signature.outputs: {names} don't match the model's outputs {own}; name some of them, or all in order"
        )
    return own
