"""Where int8 products of ONNX Runtime saturate: on x86 processors without instructions for them (VNNI, AMX).

There a pair of products of unsigned activations and signed weights is added in 16 bits, which two large ones don't
fit into: the sum is cut off, and the answer is wrong without a word (ONNX Runtime, "Quantize ONNX Models"). Weights of
7 bits (`reduce_range`) and unsigned weights fit; ARM processors add in 32 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.artifact import Artifact
from hone.hardware import host

KEY = "x86_features"
NEEDS = {KEY: "avx512_vnni|avx_vnni|amx_int8"}
"""Among what an artifact requires: that an x86 processor has one of these."""

X86 = ("x86_64", "amd64", "i386", "i686")


def saturates(artifact: Artifact, here: Mapping[str, Any] | None = None) -> str:
    """Return why an artifact would answer wrongly on a host, or an empty string.

    One that was proven on a processor that saturates, too, answers as it was proven to.

    Args:
        artifact: opened.
        here: facts of `hone.hardware.host`; None: this host's.
    """
    wanted = artifact.manifest.requires.get(KEY, "").split("|")
    if wanted == [""]:
        return ""
    proof = artifact.manifest.measurements.host if artifact.manifest.measurements else {}
    if not lacks(here or host(), wanted) or lacks(proof, wanted):
        return ""
    return (
        f"its int8 products saturate on a processor without {' or '.join(wanted)}, as this one is; "
        "make a variant with reduce_range: true"
    )


def host_saturates() -> bool:
    """Return whether int8 products of signed weights are cut off on this host."""
    return lacks(host(), NEEDS[KEY].split("|"))


def lacks(facts: Mapping[str, Any], wanted: list[str]) -> bool:
    """Return whether a host is known to be an x86 processor with none of these features."""
    features = facts.get("cpu_features") or []
    x86 = str(facts.get("machine", "")).lower() in X86
    return x86 and bool(features) and not set(features) & set(wanted)
