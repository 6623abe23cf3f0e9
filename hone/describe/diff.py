"""Compare two artifacts by their manifests: what changed, in lines for people."""

from __future__ import annotations

from typing import Any

from hone.artifact import Manifest


def differences(left: Manifest, right: Manifest) -> list[str]:
    """Return one line for each difference; measurements are given with their ratio."""
    lines = []
    for field in ("name", "variant", "runtime", "precision", "entry", "requires", "runtime_options"):
        lines += _changed(field, getattr(left, field), getattr(right, field))
    lines += _signatures(left, right)
    lines += _steps(left, right)
    lines += _lineage(left, right)
    lines += _changed("tools", left.tools, right.tools)
    lines += _files(left, right)
    return lines + _measurements(left, right)


def _changed(field: str, old: Any, new: Any) -> list[str]:
    if old == new:
        return []
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [
            f"{field}.{key}: {old.get(key, 'none')} -> {new.get(key, 'none')}"
            for key in keys
            if old.get(key) != new.get(key)
        ]
    return [f"{field}: {old} -> {new}"]


def _signatures(left: Manifest, right: Manifest) -> list[str]:
    specs = [
        {f"{kind} {spec.name}": spec.describe() for kind in ("inputs", "outputs") for spec in getattr(side, kind)}
        for side in (left.signature, right.signature)
    ]
    return _changed("signature", *specs)


def _steps(left: Manifest, right: Manifest) -> list[str]:
    shown = [
        {where: one.described() for where, one in side.steps.named()} if side.steps else {} for side in (left, right)
    ]
    return _changed("steps", *shown)


def _lineage(left: Manifest, right: Manifest) -> list[str]:
    """Passes that both chains begin with are equal; from the first that differs on, both are listed."""
    chains = [[(record.name, record.options) for record in side.lineage] for side in (left, right)]
    shared = 0
    while shared < min(map(len, chains)) and chains[0][shared] == chains[1][shared]:
        shared += 1
    lines = []
    for sign, chain in zip("-+", chains, strict=True):
        for name, options in chain[shared:]:
            text = ", ".join(f"{key}={value}" for key, value in options.items())
            lines.append(f"{sign} pass {name}({text})")
    return lines


def _files(left: Manifest, right: Manifest) -> list[str]:
    lines = []
    for name in sorted({*left.files, *right.files}):
        old, new = left.files.get(name), right.files.get(name)
        if old == new:
            continue
        sizes = " -> ".join(f"{record.size:,} bytes" if record else "none" for record in (old, new))
        lines.append(f"file {name}: {sizes}")
    return lines


def _measurements(left: Manifest, right: Manifest) -> list[str]:
    old, new = left.measurements, right.measurements
    if old is None or new is None:
        return []
    lines = []
    if old.quality.metric == new.quality.metric:
        lines.append(f"{old.quality.metric}: {old.quality.value:.4f} -> {new.quality.value:.4f}")
    pairs = [("size MB", old.size_mb, new.size_mb), ("peak memory MiB", old.peak_rss_mb, new.peak_rss_mb)]
    for latency in old.latency:
        other = new.at(latency.batch, latency.threads)
        if other:
            pairs.append((f"p50 ms, batch {latency.batch}, threads {latency.threads}", latency.p50, other.p50))
    lines += [f"{what}: {a:.4g} -> {b:.4g} ({b / a:.2f}x)" for what, a, b in pairs if a]
    if old.host != new.host:
        lines.append("measured on different hosts: latencies don't compare")
    return lines
