"""Say which of ONNX Runtime's execution providers run the graph, in order of preference."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hone.artifact import Artifact
from hone.errors import UnavailableError
from hone.runtimes.onnx.providers import option_problem

from ...context import Built, PassContext, copy_files
from ...graph.providers import PROVIDERS, missing_provider
from ...registry import PassOptions, register

Name = Literal["cpu", "cuda", "tensorrt"]


class Options(PassOptions):
    """Where the graph computes; a host that lacks the first falls back to the next and says so when it loads.

    The variant is proved only on a host that has the first, so that no figure is of a fallback.
    """

    order: tuple[Name, ...] = Field(
        ("cuda", "cpu"), min_length=1, description="Providers, most wanted first; without cpu no CPU host loads it."
    )
    options: dict[Name, dict[str, str | int | float | bool]] = Field(
        default_factory=dict,
        description="ONNX Runtime's options of each, such as cuda: {cudnn_conv_algo_search: HEURISTIC}; none that name "
        "files or libraries of the host.",
    )

    @field_validator("order")
    @classmethod
    def _once(cls, value: tuple[Name, ...]) -> tuple[Name, ...]:
        if len(set(value)) != len(value):
            raise ValueError(f"a provider stands twice in {list(value)}")
        return value

    @model_validator(mode="after")
    def _options_are_used(self) -> Options:
        for name, values in self.options.items():
            if name not in self.order:
                raise ValueError(f"options: '{name}' is not in order {list(self.order)}")
            if problem := option_problem(PROVIDERS[name], values):
                raise ValueError(f"options: {problem}")
        return self

    def missing(self, given: str) -> UnavailableError | None:
        first = self.order[0]
        return missing_provider(first, f"ONNX Runtime has no {first} provider on this host")


@register("providers", consumes="onnx", produces="onnx", options=Options, tools=("onnxruntime", "onnxruntime-gpu"))
def providers(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Copy the graph; the artifact carries the providers and their options to every host."""
    copy_files(model, out)
    runtime_options: dict[str, Any] = {
        **model.manifest.runtime_options,
        "providers": [PROVIDERS[name] for name in options.order],
        "provider_options": {PROVIDERS[name]: dict(values) for name, values in options.options.items()},
    }
    requires = {} if "cpu" in options.order else {"gpu": "any"}
    return Built(model.entry.name, runtime_options=runtime_options, requires=requires)
