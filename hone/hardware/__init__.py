"""What this host is: processor, memory, accelerators, and the versions that a measurement depends on."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from hone.hardware.cgroups import cpu_quota, cpuset_cores


@cache
def host() -> dict[str, Any]:
    """Return the facts about this host that a measurement is meaningless without."""
    return {
        "machine": platform.machine(),
        "system": platform.system(),
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": gpu_name(),
        "python": platform.python_version(),
    }


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: affinity, cpuset and container quota, unlike `os.cpu_count`.

    Args:
        root: folder that stands for `/`, where control groups are read.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        allowed = os.cpu_count() or 1
    quota = cpu_quota(root)
    limits = [allowed, cpuset_cores(root), None if quota is None else math.ceil(quota)]
    return max(1, min(limit for limit in limits if limit is not None))


@cache
def cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def cpu_features() -> list[str]:
    """Return the instruction sets that decide which kernels a runtime picks (Linux only; empty elsewhere)."""
    interesting = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp")
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    flags = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "").split()
    return [feature for feature in interesting if feature in flags]


@cache
def gpu_name() -> str | None:
    """Return the name of the first NVIDIA GPU, or None."""
    return _nvidia_query("name")


@cache
def gpu_architecture() -> str | None:
    """Return the compute capability of the first NVIDIA GPU as `sm_90`, or None."""
    capability = _nvidia_query("compute_cap")
    return f"sm_{capability.replace('.', '')}" if capability else None


def _nvidia_query(field: str) -> str | None:
    try:
        answer = subprocess.run(
            ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    lines = answer.stdout.strip().splitlines()
    return lines[0].strip() if lines else None


def is_apple_silicon() -> bool:
    return platform.system() == "Darwin" and platform.machine() == "arm64"


def tool_versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of packages; one that is not installed is left out."""
    found: dict[str, str] = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
