"""Instructions that a precision wants and the processor lacks, and calls that are too small to be worth their cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hone.profiles.findings.seen import Seen
from hone.profiles.record import ProfileFinding
from hone.runtimes.onnx.saturation import X86

SETS = {
    "AVX2": ("avx2",),
    "AVX-512": ("avx512f",),
    "VNNI": ("avx512_vnni", "avx_vnni"),
    "BF16": ("avx512_bf16", "amx_bf16"),
    "AMX": ("amx_int8", "amx_bf16"),
}
"""What models are computed with on x86, and the features that a processor has it by."""
OUTSIDE = 0.4
"""Share of a call that no operator takes, from which it is worth a line."""


def lacking(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the instruction sets that an x86 processor lacks; none of one that is unknown, or of another kind."""
    features = set(facts.get("cpu_features") or ())
    if str(facts.get("machine", "")).lower() not in X86 or not features:
        return ()
    return tuple(name for name, ways in SETS.items() if not features & set(ways))


def find(seen: Seen) -> Iterator[ProfileFinding]:
    on_cpu = any(node.where == "CPU" for node in seen.nodes)
    if on_cpu and seen.precision == "int8" and "VNNI" in seen.lacks and "AMX" in seen.lacks:
        yield ProfileFinding(
            kind="host",
            what="this processor has no instructions for int8 products (VNNI, AMX): they take three instead of one, "
            "and may be no faster than float",
            remedy="serve float here, or int8 on a processor that has them",
        )
    if on_cpu and seen.precision == "bf16" and "BF16" in seen.lacks:
        yield ProfileFinding(
            kind="host", what="this processor has no bfloat16 (AVX-512 BF16, AMX)", remedy="serve float or int8 here"
        )
    if seen.outside >= OUTSIDE:
        rows = "batches share it" if seen.batch == 1 else "larger batches share it"
        yield ProfileFinding(
            kind="outside",
            what=f"{seen.outside:.0%} of a call is spent outside of operators: calling the runtime, its threads",
            remedy=f"the model is small for a call of {seen.batch} row{'s' if seen.batch > 1 else ''}: {rows}",
        )
