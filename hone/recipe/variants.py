"""The recipe's field `variants`: a preset, or a chain of passes."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from hone.names import is_name
from hone.recipe.model import Strict

AUTO = "auto"
"""Stands among variants for the presets that fit the model, the host and the budget."""


class VariantSpec(Strict):
    """A preset by name, a preset with changed options, or an explicit chain of passes."""

    name: str = ""
    preset: str | None = None
    passes: tuple[str | dict[str, dict[str, Any] | None], ...] = ()
    options: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="With a preset: options by pass name that differ from the preset's."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"preset": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_form(self) -> VariantSpec:
        if bool(self.preset) == bool(self.passes):
            raise ValueError("give either 'preset' or 'passes'")
        if self.passes and not self.name:
            raise ValueError("a variant with 'passes' needs a 'name'")
        if self.passes and self.options:
            raise ValueError("'options' goes with 'preset'; with 'passes' write them beside the pass")
        if self.is_auto and (self.name or self.options):
            raise ValueError("'auto' stands for several presets: it has no 'name' and no 'options'")
        if self.name and not is_name(self.name):
            raise ValueError(f"name '{self.name}' must be 1-40 of a-z, 0-9, '.', '_', '-'")
        return self

    @property
    def is_auto(self) -> bool:
        return self.preset == AUTO

    def __str__(self) -> str:
        return self.name or self.preset or ""
