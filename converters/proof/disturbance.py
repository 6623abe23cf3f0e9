"""How steady the host is while latency is measured: a fixed loop is timed beside the variants."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

LOOP = bytes(1_000_000)
FEWEST_TICKS = 8
UNSTEADY = 1.3
STOLEN = 0.02


class HostNoise(BaseModel):
    """What disturbed a measurement. A steady host gives a spread near 1 and nothing stolen."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spread: float = Field(description="90th percentile of a fixed loop's times over its median.")
    stolen: float = Field(description="Share of the processors' time that the hypervisor gave to others.")
    ticks: int = Field(description="How often the loop was timed.")

    @property
    def warning(self) -> str:
        """One line when the host was disturbed, else empty."""
        parts = []
        if self.ticks >= FEWEST_TICKS and self.spread > UNSTEADY:
            parts.append(f"a fixed loop took {self.spread:.1f} times its median in one round of ten")
        if self.stolen > STOLEN:
            parts.append(f"{self.stolen:.0%} of the processors' time was stolen")
        if not parts:
            return ""
        return f"the host was disturbed while latency was measured: {', '.join(parts)}; small differences are noise"


class HostWatch:
    """Times the loop at each tick, from its creation on."""

    def __init__(self) -> None:
        self._ticks: list[int] = []
        self._before = _jiffies()

    def tick(self) -> None:
        started = time.perf_counter_ns()
        hashlib.sha256(LOOP).digest()
        self._ticks.append(time.perf_counter_ns() - started)

    def noise(self) -> HostNoise:
        stolen, total = (after - before for after, before in zip(_jiffies(), self._before, strict=True))
        spread = float(np.percentile(self._ticks, 90) / np.median(self._ticks)) if self._ticks else 1.0
        share = stolen / total if total > 0 else 0.0
        return HostNoise(spread=round(spread, 3), stolen=round(share, 4), ticks=len(self._ticks))


def _jiffies() -> tuple[int, int]:
    """Return (stolen, all) processor time since the start of the system; zeros where the system doesn't say."""
    try:
        fields = [int(text) for text in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except (OSError, ValueError, IndexError):
        return 0, 0
    return (fields[7] if len(fields) > 7 else 0), sum(fields[:8])
