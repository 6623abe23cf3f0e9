"""A new version that gets its requests step by step in a cluster: `hone k8s render --rollout`.

argo     Argo Rollouts makes the pods from the Deployment, and looks at the metrics of both versions after each step.
flagger  Flagger keeps the version that serves in a Deployment of its own, and gives the Gateway the weights.
gateway  nothing but the Gateway API: a second Deployment with an autoscaler of its own, and weights in the route.

Each version scales by itself. One autoscaler over both would count the idle pods of one against the busy of the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import yaml

from hone.capacity import Capacity
from hone.errors import HoneError

from ...numbers import uses_keda
from .argo import argo
from .flagger import flagger
from .gateway import for_canary, gateway
from .parts import Added

KINDS = ("argo", "flagger", "gateway")
WINDOW_S = 120.0
"""That each step takes."""


@dataclass(frozen=True)
class Rollout:
    """How a new version gets its requests.

    Attributes:
        kind: of `KINDS`.
        canary: its image, where a second Deployment runs it; empty: the same as the other's, until it is changed.

    Raises:
        HoneError: there is no such kind, or it has no use for an image.
    """

    kind: str
    canary: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise HoneError(f"--rollout: no '{self.kind}'; there are {', '.join(KINDS)}")
        if self.canary and self.kind != "gateway":
            raise HoneError("--canary-image: a new version is a new image of the Deployment")

    def components(self, chosen: tuple[str, ...]) -> tuple[str, ...]:
        """Return components with those that it needs; raises HoneError for one that it doesn't go with."""
        if uses_keda(chosen):
            raise HoneError(f"--rollout {self.kind}: each version needs a plain autoscaler; leave keda out")
        for name in ("ingress", "loadbalancer"):
            if self.kind != "argo" and name in chosen:
                raise HoneError(f"--rollout {self.kind}: the weights are in the Gateway's route; leave the {name} out")
        more = ("metrics",) if self.kind == "argo" else ("gateway", "metrics")
        return (*chosen, *(name for name in more if name not in chosen))

    def written(self, folder: Path, capacity: Capacity, patches: list[str]) -> list[str]:
        """Write its objects to rollout.yaml of a kustomize folder; return the lines of patches that go with them.

        Args:
            patches: those of the autoscaler; a second one gets them, too.
        """
        found = self._added(capacity)
        text = yaml.safe_dump_all(found.resources, sort_keys=False, width=1000)
        (folder / "rollout.yaml").write_text(f"# {self.kind}: see docs/rollout.md.\n{text}")
        return [*(for_canary(patches) if self.kind == "gateway" else ()), *found.patches]

    def _added(self, capacity: Capacity) -> Added:
        if self.kind == "gateway":
            return gateway()
        limit_s = capacity.slo.limit_ms / 1e3
        return argo(limit_s, WINDOW_S) if self.kind == "argo" else flagger(limit_s, WINDOW_S)
