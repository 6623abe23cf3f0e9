"""What findings are made of: the nodes with their time, the graph they stand in, and what is known of the artifact."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hone.artifact import Manifest
from hone.profiles.graph import Graph, Node
from hone.profiles.record import NodeShare

NAMED = 8
"""Nodes that a finding names; the others are counted."""


@dataclass(frozen=True)
class Seen:
    """A profile before it was looked at.

    Attributes:
        manifest: of the artifact.
        nodes: with their times.
        graph: as ONNX Runtime runs it; None: of another runtime, or it can't be read.
        host: facts of `hone.hardware.host`.
        lacks: instruction sets that the host lacks.
        batch: rows of a run.
        outside: share of a call without the profiler that no operator took.
    """

    manifest: Manifest
    nodes: tuple[NodeShare, ...]
    graph: Graph | None
    host: Mapping[str, Any]
    lacks: tuple[str, ...]
    batch: int
    outside: float

    @property
    def precision(self) -> str:
        return self.manifest.precision

    @property
    def passes(self) -> set[str]:
        return {step.name for step in self.manifest.lineage}

    def share(self, nodes: Iterable[Node | NodeShare]) -> float:
        """Return the share of time of some nodes, each counted once."""
        names = {node.name for node in nodes}
        return min(1.0, sum(node.share for node in self.nodes if node.name in names))  # rounding adds up


def named(nodes: Iterable[Node | NodeShare]) -> tuple[str, ...]:
    """Return the names of nodes, each once, and no more than a reader wants."""
    return tuple(dict.fromkeys(node.name for node in nodes))[:NAMED]


def counted(count: int, one: str) -> str:
    return f"{count} {one}{'' if count == 1 else 's'}"
