"""ONNX Runtime's execution providers by the names that recipes use, and what a host lacks for one."""

from __future__ import annotations

from hone.errors import UnavailableError
from hone.runtimes.onnx.providers import CPU, CUDA, TENSORRT

PROVIDERS: dict[str, str] = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT}


def missing_provider(name: str, reason: str) -> UnavailableError | None:
    """Return the reason with its remedy when this host can't use a provider, else None."""
    from hone.runtimes.onnx.runtime import usable_providers

    if PROVIDERS[name] in usable_providers():
        return None
    return UnavailableError(
        reason, "on a host with an NVIDIA GPU run: pip install 'hone[torch,cuda]' && hone optimize RECIPE"
    )
