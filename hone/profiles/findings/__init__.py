"""Why a model's time goes where it goes: each file looks for one kind of reason, and tells by what it is seen."""

from __future__ import annotations

from hone.profiles.findings import fusions, hosts, placement, quantized
from hone.profiles.findings.seen import Seen
from hone.profiles.record import ProfileFinding

__all__ = ["Seen", "find"]


def find(seen: Seen) -> tuple[ProfileFinding, ...]:
    """Return what was found, what takes most time first."""
    found = [finding for room in (quantized, fusions, placement, hosts) for finding in room.find(seen)]
    return tuple(sorted(found, key=lambda finding: -(finding.share or 0)))
