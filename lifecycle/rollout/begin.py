"""Beginning a rollout: what it is about is looked at before a request goes to the new version."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hone import store
from hone.services.status.asking import Access
from hone.services.status.splitting import RemoteSplit
from hone.store.registry import ALIASES

from ..experiments.state import experiment_of
from ..registry.changes import examine
from .drive import kept_promotion
from .state import Rollout, RolloutError, rollout_of


def begin(
    name: str,
    to: str,
    url: str,
    access: Access,
    *,
    steps: Sequence[float],
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
        url: of the service.
        access: to it.
        steps: percent, growing, the last one 100.
        waived, approval: for the gates of the promotion.
        promoting: to be promoted in the registry in the end; its gates are looked at now.
        sketches: of traffic, for the gate of drift.
        fields: others of `Rollout`.

    Raises:
        StoreError: no such version.
        PromotionError: a gate is closed.
        RolloutError: one is under way, or the steps are wrong; HoneError: the service refuses.
    """
    _check(name, steps)
    canary = store.resolve(f"{name}{'@' if to in ALIASES else ':'}{to}")
    split = RemoteSplit(url, name, access)
    stable = split.answers()
    if split.show()["split"] is not None:
        raise RolloutError(f"the requests for '{name}' are split already; hone split clear {name}")
    if stable == canary.version:
        raise RolloutError(f"{canary.tag} answers all requests already")
    promotion = None
    if promoting:
        found = examine(canary.tag, waived=waived, approval=approval, sketches=sketches)
        found.refuse()
        promotion = kept_promotion(found)
    ca = str(access.ca.resolve()) if access.ca else ""
    return Rollout(
        name=name, url=url, ca=ca, stable=stable, canary=canary.version, steps=tuple(steps), reason=reason,
        promotion=promotion, **fields,
    ).becoming()  # fmt: skip


def _check(name: str, steps: Sequence[float]) -> None:
    """Raise RolloutError when an A/B test or another rollout of the model isn't over, or the steps are none."""
    test = experiment_of(name)
    if test is not None and not test.ended:
        raise RolloutError(f"an A/B test of '{name}' is {test.status}; hone ab stop {name} ends it")
    before = rollout_of(name)
    if before is not None and not before.ended:
        raise RolloutError(f"a rollout of {name}:{before.canary} is {before.status}; resume it, or abort it")
    if any(one >= other for one, other in pairwise(steps)) or not 0 < steps[0] <= steps[-1] == 100:
        raise RolloutError(f"steps {', '.join(f'{one:g}' for one in steps)}: they must grow, from over 0 to 100")
