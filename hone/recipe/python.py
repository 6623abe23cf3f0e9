"""The recipe's field `source.python`: a function of tensors, the files that belong to it, and what it needs."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from hone.apart.requirements import problem_in
from hone.userload import REFERENCE


def _requirement(value: str) -> str:
    if problem := problem_in(value):
        raise ValueError(problem)
    return value


def _beside(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"'{value}' is not beside the recipe; copy it there")
    return value


Reference = Annotated[str, Field(pattern=REFERENCE)]


class PythonSpec(BaseModel):
    """A model that no graph can express: your own function, served in processes of its own. `model:predict` alone
    stands for `{predict: model:predict}`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    predict: Reference | None = Field(
        None,
        description="`module:function` beside the recipe that gets a dict of arrays by name, rows first, and returns "
        "one.",
    )
    load: Reference | None = Field(
        None,
        description="Or `module:function` that is called once a process with the folder of the module and its files, "
        "and returns such a function.",
    )
    files: tuple[Annotated[str, AfterValidator(_beside)], ...] = Field(
        (), description="Files and folders beside the recipe that it reads. Modules that it imports come by themselves."
    )
    requirements: tuple[Annotated[str, AfterValidator(_requirement)], ...] = Field(
        (), description="Packages that it imports, as pip names them: `statsmodels>=0.14`. NumPy is there."
    )

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"predict": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_form(self) -> PythonSpec:
        if bool(self.predict) == bool(self.load):
            raise ValueError("give either 'predict' or 'load'")
        return self

    @property
    def call(self) -> str:
        """What is called: a function of tensors, or one that returns it."""
        return self.predict or self.load or ""
