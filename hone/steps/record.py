"""What a recipe says of steps, and what an artifact's manifest does: the same words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

from hone.steps.answers import Labels, Normalize, Sigmoid, Softmax, Threshold, TopK
from hone.steps.base import Step
from hone.steps.columns import Categories, Records, Scale
from hone.steps.own import Function
from hone.steps.pictures import Image
from hone.steps.text import Tokenize


class _OneStep(BaseModel):
    """A step by its name; `softmax` alone stands for `softmax: {}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = {value: {}}
        if isinstance(value, dict):
            return {name: {} if options is None else options for name, options in value.items()}
        return value

    @model_validator(mode="after")
    def _is_one(self) -> _OneStep:
        if len(self.model_fields_set) != 1:
            raise ValueError(f"give one step: {', '.join(type(self).model_fields)}")
        return self

    @property
    def kind(self) -> str:
        return next(iter(self.model_fields_set))

    @property
    def step(self) -> Step:
        found: Step = getattr(self, self.kind)
        return found

    @model_serializer
    def _as_written(self) -> dict[str, Any]:
        return {self.kind: self.step.model_dump(mode="json")}

    def described(self) -> str:
        """Return it in words, with the options that differ from the defaults."""
        options = self.step.model_dump(mode="json", exclude_defaults=True)
        return f"{self.kind}({', '.join(f'{key}={value}' for key, value in options.items())})"


class PreStep(_OneStep):
    """A step before the model; one of these."""

    tokenize: Tokenize | None = None
    image: Image | None = None
    scale: Scale | None = None
    categories: Categories | None = None
    records: Records | None = None
    function: Function | None = None


class PostStep(_OneStep):
    """A step behind the model; one of these."""

    softmax: Softmax | None = None
    sigmoid: Sigmoid | None = None
    normalize: Normalize | None = None
    threshold: Threshold | None = None
    top_k: TopK | None = None
    labels: Labels | None = None
    function: Function | None = None


class Steps(BaseModel):
    """All steps of a model, in order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preprocess: tuple[PreStep, ...] = Field(())
    postprocess: tuple[PostStep, ...] = Field(())

    def __bool__(self) -> bool:
        return bool(self.preprocess or self.postprocess)

    def named(self) -> Iterator[tuple[str, PreStep | PostStep]]:
        """Return each step and where it stands, `preprocess[0]` for one."""
        for field in ("preprocess", "postprocess"):
            for index, one in enumerate(getattr(self, field)):
                yield f"{field}[{index}]", one

    def placed(self) -> Iterator[tuple[str, Step]]:
        """Return the options of each step and where they stand, `preprocess[0].tokenize` for one."""
        for where, one in self.named():
            yield f"{where}.{one.kind}", one.step

    @property
    def files(self) -> list[str]:
        """The files that the steps name."""
        return [name for _, step in self.placed() for name in files_of(step).values()]

    @property
    def functions(self) -> list[Function]:
        """The steps that are code of the user's own."""
        return [step for _, step in self.placed() if isinstance(step, Function)]

    @property
    def packages(self) -> list[str]:
        """The modules that the steps need, sorted."""
        return sorted({step.package for _, step in self.placed() if step.package})


def files_of(step: Step) -> dict[str, str]:
    """Return the files that a step names, by option."""
    if isinstance(step, Function):
        return {"file": step.module_file}
    return {field: name for field in step.file_fields if (name := getattr(step, field))}
