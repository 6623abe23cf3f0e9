"""Beginning a rollout: what it is about is looked at before a request goes to the new version."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hone import store
from hone.services.status.asking import Access
from hone.store.registry import ALIASES

from ..experiments.state import experiment_of
from ..registry.changes import examine
from ..replicas.fleet import Fleet
from .by_replicas import ByReplicas, evidence_folder
from .dealing import BySplit
from .drive import kept_promotion
from .labels import check_readable
from .state import Labels, Rollout, RolloutError, Strategy, rollout_of


def begin(
    name: str,
    to: str,
    url: str,
    access: Access,
    *,
    steps: Sequence[float],
    strategy: Strategy = "split",
    reason: str = "",
    waived: Sequence[str] = (),
    approval: str = "",
    promoting: bool = True,
    sketches: Path | None = None,
    **fields: Any,
) -> Rollout:
    """Write down a new rollout, which no request has felt yet.

    Args:
        name: of the model.
        to: version, variant or alias.
        url: of the service; of replicas on this host it is known.
        access: to it.
        steps: percent, growing, the last one 100; rolling and blue-green have their own.
        strategy: how the requests are dealt out.
        waived, approval: for the gates of the promotion.
        promoting: to be promoted in the registry in the end; its gates are looked at now.
        sketches: of traffic, for the gate of drift.
        fields: others of `Rollout`.

    Raises:
        StoreError: no such version.
        PromotionError: a gate is closed.
        RolloutError: one is under way, or the steps are wrong; HoneError: the service refuses, or labels can't be read.
    """
    _check_none_is_under_way(name)
    labels: Labels | None = fields.get("labels")
    if labels is not None:
        check_readable(labels, name)
    stable, place = _place(name, url, access, strategy, tuple(steps))
    canary = store.resolve(f"{name}{'@' if to in ALIASES else ':'}{to}")
    if stable == canary.version:
        raise RolloutError(f"{canary.tag} answers all requests already")
    promotion = None
    if promoting:
        found = examine(canary.tag, waived=waived, approval=approval, sketches=sketches)
        found.refuse()
        promotion = kept_promotion(found)
    ca = str(access.ca.resolve()) if access.ca else ""
    about = {"name": name, "strategy": strategy, "ca": ca, "reason": reason, "promotion": promotion}
    return Rollout(**about, **place, **fields, stable=stable, canary=canary.version).becoming()


def _place(
    name: str, url: str, access: Access, strategy: Strategy, steps: tuple[float, ...]
) -> tuple[str, dict[str, Any]]:
    """Return the version that answers now, and what a rollout has to know of where it is."""
    if strategy == "split":
        _check_steps(steps)
        return BySplit(name, url, access).serving(), {"url": url, "steps": steps}
    replicas = ByReplicas(name, strategy)
    stable, steps = replicas.serving(), replicas.steps(steps)
    _check_steps(steps)
    shutil.rmtree(evidence_folder(name), ignore_errors=True)  # of the rollout before
    place = {"url": Fleet(name).seen.url, "steps": steps, "replicas": replicas.count, "id": secrets.token_hex(8)}
    return stable, place


def _check_none_is_under_way(name: str) -> None:
    """Raise RolloutError when an A/B test or another rollout of the model isn't over."""
    test = experiment_of(name)
    if test is not None and not test.ended:
        raise RolloutError(f"an A/B test of '{name}' is {test.status}; hone ab stop {name} ends it")
    before = rollout_of(name)
    if before is not None and not before.ended:
        raise RolloutError(f"a rollout of {name}:{before.canary} is {before.status}; resume it, or abort it")


def _check_steps(steps: Sequence[float]) -> None:
    if any(one >= other for one, other in pairwise(steps)) or not 0 < steps[0] <= steps[-1] == 100:
        raise RolloutError(f"steps {', '.join(f'{one:g}' for one in steps)}: they must grow, from over 0 to 100")
