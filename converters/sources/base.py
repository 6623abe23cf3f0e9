"""What a source is: a framework that trained models come from. One file a framework.

A source turns what the recipe names into an artifact of its own runtime (`ingest`: the baseline that every variant is
compared with), and that artifact into ONNX (`export`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from converters.passes.base import Built, PassContext
from hone.artifact import Artifact
from hone.recipe import LoadedRecipe
from hone.signature import Signature
from hone.userload import call, load_function

_REGISTER: dict[str, type[Source]] = {}


class Source(ABC):
    """One framework."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """File endings that belong to this framework alone."""
    tools: ClassVar[tuple[str, ...]] = ()
    """Packages whose versions decide what an export looks like."""

    @abstractmethod
    def owns(self, model: Any) -> bool:
        """True when an object that a loader returned is a model of this framework. Must not import the framework
        when the object can't be one."""

    @abstractmethod
    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        """Write the model into `out`, as an artifact that the runtime of the same name loads.

        `Built.signature` must hold the inputs: the recipe's, or those read from the model where its format has them
        and the recipe gives none. Outputs may be left empty: the pipeline finds them by running the model.

        Raises:
            RecipeError: naming the field of the recipe that is wrong and the remedy.
        """

    @abstractmethod
    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Convert an artifact of this framework to `model.onnx` in `out`, with the signature's names and axes.

        Raises:
            PassError: naming the layer that can't be exported, and what to change.
        """

    @abstractmethod
    def inspect(self, file: Path) -> Signature | None:
        """Return the signature that a model file itself holds, or None when its format holds none (for `hone init`)."""


_kept: dict[tuple[Path, str], Any] = {}


def call_loader(loaded: LoadedRecipe, *, keep: bool = False) -> Any:
    """Return what the recipe's `source.loader` returns.

    Args:
        loaded: a recipe with a loader.
        keep: hold on to the result for the next call, which then takes it: telling the framework and reading the
            model both need it, and a loader may train for minutes.

    Raises:
        RecipeError: the loader can't be imported, or fails; with the line of the user's code.
    """
    reference, field = loaded.recipe.source.loader, f"{loaded.path}: source.loader"
    assert reference is not None
    key = (loaded.path, reference)
    if key in _kept:
        return _kept.pop(key)
    model = call(load_function(reference, loaded.root, field), reference, field)
    if keep:
        _kept[key] = model
    return model


def register(name: str) -> Callable[[type[Source]], type[Source]]:
    def add(cls: type[Source]) -> type[Source]:
        cls.name = name
        _REGISTER[name] = cls
        return cls

    return add


def registered() -> dict[str, type[Source]]:
    return _REGISTER
