"""A rising load: at which rate it crosses the limit.

One run passes all rates from none to a peak, so it tells in seconds what takes a search of steady runs minutes. It says
a little too much, for a queue takes a moment to build up, of all candidates alike: it ranks them, and proves nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hone.capacity import Slo

PEAK = 1.5
"""Of the most that callers in a closed loop reached: the load rises so far."""

NEAR_END = 0.95
"""A crossing after this share of the run is none: the peak was too low."""

LEAST = 0.02
"""Of the peak; a crossing below is at no rate at all."""


@dataclass(frozen=True)
class Rising:
    """What a run saw whose rate rose from none to the peak, in the order in which requests were meant to start.

    Attributes:
        intended: [requests] seconds from the start.
        latencies_ms: [requests] from then to the answer.
        failed: [requests] whether there was no good answer.
        seconds: in which the rate rose.
        peak: requests/s at the end.
    """

    intended: np.ndarray
    latencies_ms: np.ndarray
    failed: np.ndarray
    seconds: float
    peak: float

    def crossed_s(self, slo: Slo) -> float:
        """Return the moment after which more requests than are allowed are over the limit.

        It is the highest point of the sum of (allowed - over), whose slope is what the share has left to the limit
        (the walk of Page's test, Continuous Inspection Schemes, Biometrika 41, 1954).
        """
        over = self.failed | (self.latencies_ms > slo.limit_ms)
        walk = np.cumsum(slo.allowed - over)
        place = int(walk.argmax())
        return float(self.intended[place]) if walk[place] > 0 else 0.0

    def rate(self, moment: float) -> float:
        return self.peak * moment / self.seconds

    def is_too_low(self, slo: Slo) -> bool:
        """True when the limit held to the end: the crossing is above the peak."""
        return self.crossed_s(slo) > NEAR_END * self.seconds

    def is_nowhere(self, slo: Slo) -> bool:
        """True when the limit was missed from the start."""
        return self.crossed_s(slo) < LEAST * self.seconds
