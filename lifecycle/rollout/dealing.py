"""What deals the requests of a rollout out: a split in a service, or the replicas on this host (`by_replicas.py`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from hone.services.status.asking import Access
from hone.services.status.splitting import RefusedError, RemoteSplit, Share

from .state import Rollout, RolloutError

STABLE, CANARY = "stable", "canary"

Heed = Callable[[], object]
"""Called while something is waited for; raises when another command asked for something."""


class Dealer(Protocol):
    """Gives a new version its share of the requests.

    Attributes:
        wants_proof: a step isn't over before the version is proven to do well enough; else when nothing speaks against
            it.
    """

    @property
    def wants_proof(self) -> bool: ...

    def serving(self) -> str:
        """Return the version that answers all requests.

        Raises:
            HoneError: there is nothing to roll out on, or it isn't free for it.
        """

    def is_in_force(self, rollout: Rollout) -> bool:
        """Return whether requests are dealt as the step wants it: after a kill there is nothing to do then."""

    def is_over(self, rollout: Rollout) -> bool:
        """Return whether the new version answers all requests and nothing is left of the rollout."""

    def weigh(self, rollout: Rollout, percent: float, heed: Heed) -> None:
        """Put a share in force.

        Raises:
            UnfitError: the new version can't serve; HoneError: it isn't done for another reason.
        """

    def verdict(self, rollout: Rollout) -> dict[str, Any]:
        """Return the verdict on the step that is in force: `verdict`, `reason` and `checks`.

        Raises:
            RefusedError, UnreachableError: there is none, or it is about something else.
        """

    def go_back(self, rollout: Rollout) -> None:
        """Give all requests to the stable version again; what was made for the rollout is ended."""

    def finish(self, rollout: Rollout) -> None:
        """Leave the new version with all of the requests; what served before is ended."""


class BySplit:
    """Both versions are loaded in one running service, which deals its requests out.

    Args:
        name: of the model.
        url: of the service.
        access: to it.
    """

    wants_proof = True

    def __init__(self, name: str, url: str, access: Access) -> None:
        self._name = name
        self._split = RemoteSplit(url, name, access)

    def serving(self) -> str:
        stable = self._split.answers()
        if self._split.show()["split"] is not None:
            raise RolloutError(f"the requests for '{self._name}' are split already; hone split clear {self._name}")
        return stable

    def is_in_force(self, rollout: Rollout) -> bool:
        split = self._split.show()["split"] or {"arms": []}
        found = {arm["name"]: (arm["version"], arm["weight"]) for arm in split["arms"]}
        return found.get(CANARY) == (rollout.canary, rollout.share)

    def is_over(self, rollout: Rollout) -> bool:
        return self._split.show()["split"] is None and self._split.answers() == rollout.canary

    def weigh(self, rollout: Rollout, percent: float, heed: Heed) -> None:
        self._split.set(self._arms(rollout, percent), **rollout.rules)

    def verdict(self, rollout: Rollout) -> dict[str, Any]:
        found = self._split.verdict(CANARY, rollout.limits)
        if (found.get("version"), found.get("weight")) != (rollout.canary, rollout.share):
            raise RefusedError("the split is no longer the one that the rollout set")
        return found

    def go_back(self, rollout: Rollout) -> None:
        split = self._split.show()["split"] or {"arms": []}
        if [arm["name"] for arm in split["arms"]] == [STABLE, CANARY]:
            # Nothing goes to the canary from this moment on; what was loaded for it is unloaded after.
            self._split.set(self._arms(rollout, 0.0), **rollout.rules)
            self._split.clear(answer=STABLE)

    def finish(self, rollout: Rollout) -> None:
        self._split.clear(answer=CANARY)

    def _arms(self, rollout: Rollout, percent: float) -> list[Share]:
        return [Share(STABLE, rollout.stable, 100 - percent), Share(CANARY, rollout.canary, percent)]
