"""What rules look at: the model's graph, this host, and what the recipe asks for and gives."""

from __future__ import annotations

from dataclasses import dataclass

from hone import runtimes
from hone.hardware import cpu_name, gpu_name, host, is_apple_silicon
from hone.recipe import Recipe
from hone.runtimes.openvino import BFLOAT16_FEATURES

from ...graph.contents import Contents
from ...passes import all_passes


@dataclass(frozen=True)
class Host:
    """What of a host decides which presets are worth making.

    Attributes:
        cpu: its name, with the instructions that int8 and bfloat16 run on.
        bfloat16: it computes in it.
        gpu: name of an NVIDIA one, or empty.
        apple: it is Apple Silicon.
        openvino, litert: why that runtime can't be used, or empty.
    """

    cpu: str
    bfloat16: bool
    gpu: str
    apple: bool
    openvino: str
    litert: str = ""

    def describe(self) -> str:
        have = "OpenVINO" if not self.openvino else "no OpenVINO"
        return f"{self.cpu}; {self.gpu or 'no NVIDIA GPU'}; {have}"


def this_host() -> Host:
    """Return the facts of this host, those that `hone doctor` shows."""
    facts = host()
    features = [name for name in facts["cpu_features"] if name.startswith(("avx512_", "avx_", "amx", "asimd"))]
    states = [runtimes.runtime_class(name).availability() for name in ("openvino", "litert")]
    lacking = ["" if state.usable else state.reason for state in states]
    return Host(
        cpu=f"{cpu_name()} ({', '.join(features) or 'no instructions for int8 known'})",
        bfloat16=any(feature in facts["cpu_features"] for feature in BFLOAT16_FEATURES),
        gpu=gpu_name() or "",
        apple=is_apple_silicon(),
        openvino=lacking[0],
        litert=lacking[1],
    )


@dataclass(frozen=True)
class Facts:
    """What decides which presets are worth making.

    Attributes:
        framework: of the source.
        fuses: the source's exports may hold attention in a form that `fuse` knows.
        graph: what the float graph is made of.
        host: where it is to run.
        recipe: budget, objective, data and hooks.
        masked: an input says which tokens of a text are real.
        unread: why there is no float graph, and `graph` is empty; else empty.
    """

    framework: str
    fuses: bool
    graph: Contents
    host: Host
    recipe: Recipe
    masked: bool = False
    unread: str = ""

    def accepts(self, name: str) -> bool:
        """Return whether a pass takes the source's framework."""
        return all_passes()[name].accepts(self.framework)

    def describe(self) -> list[str]:
        """Return what was looked at, a line each."""
        budget = self.recipe.budget
        limits = {"p50_ms": "ms p50", "p95_ms": "ms p95", "p99_ms": "ms p99", "size_mb": "MB"}
        given = [f"{value:g} {unit}" for name, unit in limits.items() if (value := getattr(budget, name)) is not None]
        drop = budget.quality_drop if isinstance(budget.quality_drop, str) else f"{budget.quality_drop:g}"
        asked = [f"{self.recipe.quality.metric.rpartition(':')[2]} drop {drop}", *given]
        return [
            f"graph: {f'not known, {self.unread}' if self.unread else self.graph.describe()}",
            f"host: {self.host.describe()}",
            f"budget: {', '.join(asked)}; objective {self.recipe.objective}",
        ]
