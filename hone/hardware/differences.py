"""In what that matters to a measurement, or to an answer, two hosts differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORDS = {"machine": "machine", "cpu_features": "instructions", "cores": "cores", "gpu": "GPU", "runtime": "runtime"}
"""Facts of `hone.hardware.host` that decide how fast what is, and by which kernels."""


def differences(proof: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """Return a line for each fact that differs; what one of them doesn't tell is left out.

    Args:
        proof: facts of the host that an artifact was proven on, from its measurements.
        here: facts of another host.
    """
    return [
        f"{words} {_text(here[name])}, at its proof {_text(proof[name])}"
        for name, words in WORDS.items()
        if name in proof and name in here and _known(proof[name]) != _known(here[name])
    ]


def _known(value: Any) -> Any:
    return sorted(value) if isinstance(value, list | tuple) else value


def _text(value: Any) -> str:
    return (", ".join(value) or "none known") if isinstance(value, list | tuple) else str(value or "none")
