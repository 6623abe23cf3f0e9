"""Rollouts over the replicas that `hone up` keeps running: nginx deals the requests, their metrics are the evidence.

canary       replicas of the new version are added as its share grows; the others stay until the end.
blue-green   a whole second set is started; nginx turns all requests to it at once, the old set stays for a window.
rolling      one new replica is started, then an old one is ended, and so on.

Before a version's replica gets a request it is ready: it has compared its golden rows with its proof's answers.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hone.services.arms.evidence import Evidence, Limits
from hone.services.arms.split import Arm, Split
from hone.services.status.splitting import RefusedError, UnreachableError

from ..replicas.counts import ReplicaCounts
from ..replicas.fleet import DownError, Fleet, UnfitError
from .dealing import CANARY, STABLE, Heed
from .state import Rollout, RolloutError, file_of


class ByReplicas:
    """The replicas of one model on this host.

    Args:
        name: of the model.
        strategy: canary, blue-green or rolling.
    """

    def __init__(self, name: str, strategy: str) -> None:
        self._fleet = Fleet(name)
        self._strategy = strategy

    @property
    def wants_proof(self) -> bool:
        return self._strategy == "canary"

    def serving(self) -> str:
        wanted = self._fleet.wanted
        ready = self._fleet.seen.ready(wanted.versions[0])
        if len(wanted.versions) > 1:
            raise RolloutError(f"replicas of {' and '.join(wanted.versions)} run already; hone rollout status")
        if not ready:
            raise RolloutError(f"no replica of {wanted.name}:{wanted.versions[0]} is ready; hone up --status")
        return wanted.versions[0]

    @property
    def count(self) -> int:
        """How many replicas there are to be."""
        return len(self._fleet.wanted.replicas)

    def steps(self, given: tuple[float, ...]) -> tuple[float, ...]:
        """Return the steps in percent: of a canary those that are given."""
        if self._strategy == "blue-green":
            return (100.0,)
        if self._strategy == "rolling":
            return tuple(100.0 * done / self.count for done in range(1, self.count + 1))
        return given

    def is_in_force(self, rollout: Rollout) -> bool:
        wanted = self._fleet.wanted
        with contextlib.suppress(DownError):
            return wanted.shares == self._shares(rollout, rollout.share) and self._fleet.is_dealt()
        return False

    def is_over(self, rollout: Rollout) -> bool:
        return self._fleet.wanted.versions == (rollout.canary,)

    def weigh(self, rollout: Rollout, percent: float, heed: Heed) -> None:
        needed = self._needed(rollout, percent)
        missing = needed - len(self._fleet.wanted.of(rollout.canary))
        if missing > 0:
            self._fleet.add(rollout.canary, missing)
        self._fleet.wait_ready(rollout.canary, needed, heed)
        stable = self._fleet.wanted.of(rollout.stable)
        # The one that this step replaces stays until the step is over: then there is always something to go back to.
        left = rollout.replicas - needed + 1 if self._strategy == "rolling" else len(stable)
        shares = self._shares(rollout, percent)
        self._fleet.change(shares, without=[replica.id for replica in stable[: len(stable) - left]])
        self._evidence(rollout).begin((100 - percent, percent))
        self._fleet.wait_dealt(heed)

    def _needed(self, rollout: Rollout, percent: float) -> int:
        if self._strategy == "blue-green":
            return rollout.replicas
        if self._strategy == "rolling":
            return max(1, round(rollout.replicas * percent / 100))
        if percent >= 50:
            return rollout.replicas
        # The old ones stay, and none of the new ones is to get more requests than one of them.
        return max(1, math.ceil(rollout.replicas * percent / (100 - percent)))

    def _shares(self, rollout: Rollout, percent: float) -> dict[str, float]:
        shares = {rollout.stable: 100 - percent, rollout.canary: percent}
        return {version: share for version, share in shares.items() if share > 0}

    def verdict(self, rollout: Rollout) -> dict[str, Any]:
        try:
            seen = self._fleet.seen
            self._fleet.check_starts(seen, rollout.canary)
        except DownError as error:
            raise UnreachableError(str(error)) from None
        except UnfitError as error:
            return {"verdict": "bad", "reason": str(error), "checks": []}
        if self._fleet.wanted.shares != self._shares(rollout, rollout.share):
            raise RefusedError("the shares of the replicas are no longer those that the rollout set")
        if not seen.ready(rollout.canary):
            return {"verdict": "bad", "reason": f"no replica of {rollout.canary} is ready any more", "checks": []}
        found, rests_on = self._evidence(rollout).verdict(CANARY, Limits(**rollout.limits))
        checks = [asdict(check) for check in found.checks]
        return {"verdict": found.verdict, "reason": found.reason, "checks": checks, "arm": CANARY, **rests_on}

    def _evidence(self, rollout: Rollout) -> Evidence:
        arms = (
            Arm(name=STABLE, version=rollout.stable, weight=100 - rollout.share),
            Arm(name=CANARY, version=rollout.canary, weight=rollout.share),
        )
        split = Split(model=rollout.name, arms=arms, id=rollout.id)
        folder = evidence_folder(rollout.name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        versions = {STABLE: rollout.stable, CANARY: rollout.canary}
        return Evidence(folder, split, ReplicaCounts(self._fleet, versions, folder / f"counts-{rollout.id}.json"))

    def go_back(self, rollout: Rollout) -> None:
        wanted = self._fleet.wanted
        stable, canary = wanted.of(rollout.stable), wanted.of(rollout.canary)
        if not canary:
            return
        if not stable:
            raise RolloutError(f"no replica of {rollout.stable} is left; hone rollout start {rollout.name} --to it")
        self._fleet.change({rollout.stable: 100.0})
        with contextlib.suppress(DownError):  # then it is so from the next start on
            self._fleet.wait_dealt(lambda: None)
        missing = rollout.replicas - len(stable)
        if missing > 0:
            self._fleet.add(rollout.stable, missing)
        self._fleet.change({rollout.stable: 100.0}, without=[replica.id for replica in canary])

    def finish(self, rollout: Rollout) -> None:
        old = self._fleet.wanted.of(rollout.stable)
        self._fleet.change({rollout.canary: 100.0}, without=[replica.id for replica in old])


def evidence_folder(name: str) -> Path:
    """Return where the counts of a rollout over replicas are kept."""
    return file_of(name, "evidence")
