"""Which benchmarks there are: the command of each, its record, and what reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import findings
from .records import Findings

MODEL = "digits:onnx-int8-static"
BESIDE = "digits:onnx-fp32"


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    Attributes:
        name: of its section, and of its record: `NAME.json`.
        title, about: of its section.
        program: `hone`, or the module of a `python -m`.
        arguments: of its whole run, given the folder of the records; where minutes are given, of one that takes about
            as long.
        read: what its record says.
    """

    name: str
    title: str
    about: str
    program: str
    arguments: Callable[[Path, float | None], list[str]]
    read: Callable[[dict[str, Any]], Findings]

    def file(self, folder: Path) -> Path:
        return folder / f"{self.name}.json"


def _serving(out: Path, minutes: float | None) -> list[str]:
    # A quick run is of nine scenarios, with and without a server; peers take minutes to be set up.
    few = ["--model", "digits", "--server", "hone", "--server", "in-process", "--rounds", "1"]
    return ["--out", str(out), *([] if minutes is None else [*few, "--seconds", _seconds(minutes, 18)])]


def _converters(out: Path, minutes: float | None) -> list[str]:
    return ["--out", str(out), *([] if minutes is None else ["--example", "digits"])]


def _capacity(out: Path, minutes: float | None) -> list[str]:
    few = [] if minutes is None else ["--minutes", f"{max(0.2, minutes):g}", "--duration", "2"]
    return ["bench", "capacity", MODEL, "--p99", "50ms", "--out", str(out / "capacity.json"), *few]


def _compare(out: Path, minutes: float | None) -> list[str]:
    few = [] if minutes is None else ["--turns", "6", "--duration", _seconds(minutes, 18)]
    return ["bench", "compare", BESIDE, MODEL, "--out", str(out / "compare.json"), *few]


def _soak(out: Path, minutes: float | None) -> list[str]:
    if minutes is None:
        return ["--out", str(out)]
    return ["--out", str(out), "--requests", str(round(60_000 * minutes)), "--minutes", f"{max(0.05, minutes):g}"]


def _generators(out: Path, minutes: float | None) -> list[str]:
    few = [] if minutes is None else ["--rounds", "1", "--seconds", _seconds(minutes, 7)]
    return ["--out", str(out), *few]


def _seconds(minutes: float, loads: int) -> str:
    """Return the seconds of one of so many loads, which together take so many minutes; a second at least."""
    return f"{min(3.0, max(1.0, 60 * minutes / loads)):g}"


BENCHMARKS = (
    Benchmark(
        "serving",
        "Serving",
        "Hone beside other servers, one worker each, the same ONNX file, in turns seconds apart; wrk sends.",
        "benchmarks.serving",
        _serving,
        findings.serving,
    ),
    Benchmark(
        "converters",
        "Converters",
        "Every example's recipe, and what other tools make of the same fp32 graph, in the same interleaved rounds.",
        "benchmarks.converters",
        _converters,
        findings.converters,
    ),
    Benchmark(
        "capacity",
        "Capacity",
        "The highest rate of Poisson arrivals that meets a limit, and the rate that is proven.",
        "hone",
        _capacity,
        findings.capacity,
    ),
    Benchmark(
        "compare",
        "Two variants in turns",
        "The int8 variant beside the fp32 one as they are served, A, B and A again in each turn.",
        "hone",
        _compare,
        findings.compare,
    ),
    Benchmark(
        "soak",
        "Soak",
        "Memory over many requests, then the tail under a steady load at 70 % of what was reached.",
        "benchmarks.soak",
        _soak,
        findings.soak,
    ),
    Benchmark(
        "generators",
        "Load generator",
        "The sender of hone bench beside wrk and Locust's own user, in turns, on a C server that answers at once.",
        "benchmarks.generators",
        _generators,
        findings.generators,
    ),
)
NAMES = tuple(benchmark.name for benchmark in BENCHMARKS)
