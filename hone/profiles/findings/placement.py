"""Nodes that run elsewhere than the model, and time that goes into the form of data in place of computing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from hone.profiles.families import family
from hone.profiles.findings.seen import Seen, counted, named
from hone.profiles.record import ProfileFinding

CASTS, LAYOUT, REFERENCE = 0.05, 0.1, 0.01
"""Shares of the time from which these are worth a line."""


def find(seen: Seen) -> Iterator[ProfileFinding]:
    yield from _moved(seen)
    casts = [node for node in seen.nodes if family(node.operator) == "casts"]
    if seen.share(casts) >= CASTS:
        what = f"{counted(len(casts), 'cast')} between types"
        yield ProfileFinding(kind="casts", what=what, share=seen.share(casts), nodes=named(casts))
    moves = [node for node in seen.nodes if family(node.operator) == "layout"]
    if seen.share(moves) >= LAYOUT:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(node.operator for node in moves).most_common(4))
        yield ProfileFinding(
            kind="layout", what=f"moving data without computing: {kinds}", share=seen.share(moves), nodes=named(moves)
        )
    slow = [node for node in seen.nodes if node.kernel.startswith("ref_")]
    if seen.share(slow) >= REFERENCE:
        yield ProfileFinding(
            kind="reference",
            what=f"{counted(len(slow), 'node')} with OpenVINO's reference kernels, which are not optimized",
            share=seen.share(slow),
            nodes=named(slow),
        )


def _moved(seen: Seen) -> Iterator[ProfileFinding]:
    """Nodes that the first provider leaves to the CPU, and the copies that this takes."""
    wanted = [name.removesuffix("ExecutionProvider") for name in seen.manifest.runtime_options.get("providers") or []]
    if not wanted or wanted[0] == "CPU":
        return
    strays = [node for node in seen.nodes if node.where not in ("", wanted[0])]
    copies = [node for node in seen.nodes if node.operator.startswith("Memcpy")]
    if strays or copies:
        kinds = ", ".join(kind for kind, _ in Counter(node.operator for node in strays).most_common(5))
        yield ProfileFinding(
            kind="moved",
            what=f"{counted(len(strays), 'node')} ({kinds or 'none'}) not on {wanted[0]}, "
            f"{counted(len(copies), 'copy').replace('copys', 'copies')} between devices",
            share=seen.share([*strays, *copies]),
            nodes=named([*strays, *copies]),
            remedy="another opset or precision may have kernels for them there",
        )
