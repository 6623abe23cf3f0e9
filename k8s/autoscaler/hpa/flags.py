"""What a cluster's controller manager decides for every autoscaler, and how releases of Kubernetes differ."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hone.errors import HoneError

Release = tuple[int, int]
NEWEST: Release = (1, 35)

OLD_RULES: Release = (1, 20)
"""Up to this release a direction looked at its own past only, and one metric could scale down without the others."""

TOLERANCE: Release = (1, 33)
"""From this release on behavior.scaleUp.tolerance and scaleDown.tolerance are known (by a feature gate before 1.35)."""


@dataclass(frozen=True)
class Flags:
    """Flags of kube-controller-manager, with their defaults.

    Attributes:
        sync_s: `--horizontal-pod-autoscaler-sync-period`.
        tolerance: `--horizontal-pod-autoscaler-tolerance`.
        initialization_s: `--horizontal-pod-autoscaler-cpu-initialization-period`.
        readiness_s: `--horizontal-pod-autoscaler-initial-readiness-delay`.
        downscale_window_s: `--horizontal-pod-autoscaler-downscale-stabilization`.
        release: of Kubernetes.
    """

    sync_s: float = 15
    tolerance: float = 0.1
    initialization_s: float = 300
    readiness_s: float = 30
    downscale_window_s: float = 300
    release: Release = NEWEST

    @property
    def old(self) -> bool:
        return self.release <= OLD_RULES


def parse_release(text: str) -> Release:
    """Return the release that `1.33` or `v1.33.4` means.

    Raises:
        HoneError: it is none.
    """
    match = re.match(r"^v?(\d+)\.(\d+)(\.\d+)?$", text)
    if match is None:
        raise HoneError(f"--kubernetes: '{text}' is not a release, such as 1.33")
    return int(match[1]), int(match[2])
