"""Energy that this host says it has used: its processors' counters (RAPL), and an NVIDIA GPU's (NVML).

RAPL counts for a whole package, with what is idle in it and whoever else computes on it. Since 2020 only root may read
it, because its steps tell secrets of other programs (Lipp et al., PLATYPUS, IEEE S&P 2021).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

POWERCAP = Path("/sys/class/powercap")
"""Where Linux has the counters, one folder each: `intel-rapl:0` is a package, `intel-rapl:0:1` a part of it; AMD's have
the same names."""

PARTS = ("package", "dram")
"""Counters that are summed up: memory is counted beside its package, cores and their graphics are within it, and `psys`
has all of it once more."""


@dataclass(frozen=True)
class Counter:
    """A counter of used energy.

    Attributes:
        name: as people know it.
        read: returns microjoules; OSError where it can't be read any more.
        wraps_at: microjoules after which it begins at 0 again; 0: never.
    """

    name: str
    read: Callable[[], int]
    wraps_at: int = 0

    def between(self, before: int, after: int) -> float:
        """Return the joules between two readings, less than one round apart."""
        used = after - before
        if used < 0 and self.wraps_at:
            used += self.wraps_at
        return max(0, used) / 1e6


@dataclass(frozen=True)
class EnergyMeter:
    """What is counted of a computation.

    Attributes:
        counters: none where the host doesn't tell.
        problem: why it doesn't, and what may help; empty where it does.
    """

    counters: tuple[Counter, ...]
    problem: str = ""

    def read(self) -> tuple[int, ...] | None:
        """Return the counters' state; None where there are none, or one can't be read."""
        try:
            return tuple(counter.read() for counter in self.counters) or None
        except (OSError, ValueError):
            return None

    def joules(self, before: Sequence[int] | None, after: Sequence[int] | None) -> float | None:
        """Return what was used between two states, or None where one isn't known."""
        if before is None or after is None:
            return None
        pairs = zip(self.counters, before, after, strict=True)
        return sum(counter.between(first, last) for counter, first, last in pairs)

    def describe(self) -> str:
        if not self.counters:
            return f"not told by this host: {self.problem}"
        return ", ".join(counter.name for counter in self.counters)


def energy_meter(gpu: bool = False, powercap: Path = POWERCAP) -> EnergyMeter:
    """Return the meter of computations here.

    Args:
        gpu: they run on the first GPU that this process may use: it is counted too, or alone where the processors don't
            tell.
        powercap: the folder of the processors' counters.
    """
    packages, problem = _packages(powercap)
    on_gpu = _gpu_counter() if gpu else None
    if gpu and on_gpu is None:
        return EnergyMeter((), "its GPU has no counter of energy that NVML reads")
    counters = (*packages, *([on_gpu] if on_gpu else []))
    return EnergyMeter(counters, "" if counters else problem)


def _packages(powercap: Path) -> tuple[list[Counter], str]:
    """Return the counters of processors and memory, or why there are none."""
    found = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        try:
            name = (folder / "name").read_text().strip()
            if not name.startswith(PARTS):
                continue
            counter = _counter(name, folder)
            counter.read()
        except PermissionError:
            return [], f"{folder}/energy_uj may be read by root only; let this user read it, or measure as root"
        except (OSError, ValueError):
            continue
        found.append(counter)
    return found, "" if found else f"{powercap} has no counters (RAPL), as in most virtual machines and containers"


def _counter(name: str, folder: Path) -> Counter:
    def read() -> int:
        return int((folder / "energy_uj").read_text())

    return Counter(name, read, int((folder / "max_energy_range_uj").read_text()))


@cache
def _gpu_counter() -> Counter | None:
    """Return the counter of the first GPU that CUDA would use; GPUs older than Volta have none."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = _handle(pynvml, os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip())
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
        name = pynvml.nvmlDeviceGetName(handle)
    except Exception:  # noqa: BLE001 - without package, driver, GPU or counter there is nothing to read
        return None

    def read() -> int:
        try:
            return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) * 1000
        except pynvml.NVMLError as error:
            raise OSError(str(error)) from error

    return Counter(str(name), read)


def _handle(pynvml: Any, device: str) -> Any:
    if device and not device.isdecimal():
        return pynvml.nvmlDeviceGetHandleByUUID(device.encode())
    return pynvml.nvmlDeviceGetHandleByIndex(int(device or 0))
