"""What a pass is, and the registry of passes: frozen options plus one pure function, artifact in, artifact out.

Caching, hashing, timing, progress and verification are done around it by `converters.run.pipeline`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from hone.artifact import Artifact
from hone.errors import UnavailableError

from .context import Built, PassContext

Need = Literal["calibration", "sample", "train", "quality"]
"""`calibration`: the recipe must name these rows; `sample`: they are used where it does."""


class PassOptions(BaseModel):
    """Base of every pass's options: unknown names and wrong types are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def references(self) -> tuple[str, ...]:
        """Return the `module:function`s among the options, whose code becomes part of the pass's cache key."""
        return ()

    def decided_here(self) -> dict[str, Any]:
        """Return what this host decides where the options leave it open; it becomes part of the pass's cache key."""
        return {}

    def missing(self, given: str) -> UnavailableError | None:
        """Return what this host lacks for these options, or None; a variant that needs it is skipped here.

        Args:
            given: the runtime format that the pass would get.
        """
        return None


class PassFunction(Protocol):
    __name__: str
    __doc__: str | None

    def __call__(self, model: Artifact, options: Any, out: Path, context: PassContext) -> Built: ...


@dataclass(frozen=True)
class Pass:
    """A registered pass.

    Attributes:
        name: how recipes call it.
        consumes: the runtime format it takes, several as `torch|keras`, or `*` for any source framework.
        produces: the runtime format it gives; `=` keeps the input's.
        function: does the work.
        options: the options class.
        needs: parts of the recipe it reads; they become part of its cache key.
        tools: packages whose versions become part of its cache key.
        runtime: the runtime that must be usable on this host for the pass to run, if any.
        revision: raise it when the code changes what the pass writes.
    """

    name: str
    consumes: str
    produces: str
    function: PassFunction
    options: type[PassOptions]
    needs: tuple[Need, ...] = ()
    tools: tuple[str, ...] = ()
    runtime: str | None = None
    revision: int = 1

    def output_of(self, runtime: str) -> str:
        return runtime if self.produces == "=" else self.produces

    def accepts(self, runtime: str) -> bool:
        return self.consumes == "*" or runtime in self.consumes.split("|")

    @property
    def takes(self) -> str:
        """What it takes, in words."""
        return "any source" if self.consumes == "*" else self.consumes.replace("|", " or ")


_REGISTER: dict[str, Pass] = {}


def register(
    name: str,
    *,
    consumes: str,
    produces: str,
    options: type[PassOptions],
    needs: tuple[Need, ...] = (),
    tools: tuple[str, ...] = (),
    runtime: str | None = None,
    revision: int = 1,
) -> Callable[[PassFunction], PassFunction]:
    """Register a pass; see `Pass` for the arguments."""

    def add(function: PassFunction) -> PassFunction:
        if name in _REGISTER:
            raise ValueError(f"pass '{name}' is registered twice")
        _REGISTER[name] = Pass(name, consumes, produces, function, options, needs, tools, runtime, revision)
        return function

    return add


def registered() -> dict[str, Pass]:
    return _REGISTER
