"""Driving a rollout: each step sets the weights, waits for the verdict, and goes on, waits, or goes back.

Whatever isn't known counts against the new version: a service that can't be asked, weights that somebody else changed.
Every step is in the registry's history before it is made.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any, NoReturn

from hone.errors import HoneError
from hone.services.status.asking import Access
from hone.services.status.splitting import RefusedError, UnreachableError
from hone.store.registry import registered

from ..registry.changes import Promotion, promote
from ..registry.gates import Gate
from ..registry.history import entered
from ..replicas.fleet import UnfitError
from .by_replicas import ByReplicas
from .dealing import BySplit, Dealer
from .labels import Labeled
from .state import Rollout, RolloutError, take_wish

POLL_S = 1.0
BLIND_S = 30.0
"""That a service may be out of reach, or without a verdict, until its rollout goes back."""

UNDECIDED, BAD = 4, 3


class _AskedError(Exception):
    """Another command asked for something while a step was being put in force."""


def dealer_of(rollout: Rollout, access: Access) -> Dealer:
    """Return what deals the requests of a rollout out."""
    if rollout.strategy == "split":
        return BySplit(rollout.name, rollout.url, access)
    return ByReplicas(rollout.name, rollout.strategy)


def with_labels(verdict: dict[str, Any], rollout: Rollout, labeled: Labeled | None) -> dict[str, Any]:
    """Return a dealer's verdict with what labels say, where they are asked for."""
    return verdict if labeled is None else labeled.beside(verdict, rollout)


@dataclass
class Driver:
    """Drives one rollout.

    Args:
        rollout: as it is on disk.
        access: to the service.
        say: told each step, in a line.
        poll_s: between two looks at the verdict.
        blind_s: see `BLIND_S`.
    """

    rollout: Rollout
    access: Access
    say: Callable[[str], object]
    poll_s: float = POLL_S
    blind_s: float = BLIND_S
    verdict: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._labeled = Labeled(self.rollout.labels) if self.rollout.labels else None

    @property
    def _dealer(self) -> Dealer:
        return dealer_of(self.rollout, self.access)

    def run(self) -> None:
        """Go through the steps that are left, and promote.

        Raises:
            RolloutError: it doesn't get to the end: with exit code 3 because the new version does badly, with 4 for
                want of evidence.
        """
        take_wish(self.rollout.name)
        self.rollout = self.rollout.becoming(status="running", told="")
        try:
            while not self._is_over():
                self._step()
                if self.rollout.step + 1 == len(self.rollout.steps):
                    self._finish()
                    return
                self.rollout = self.rollout.becoming(step=self.rollout.step + 1, since=0.0)
            self._done("it was killed after its last step")
        except KeyboardInterrupt:
            self._pause("interrupted")
            raise

    def _is_over(self) -> bool:
        """Return whether a rollout that was killed had done everything but to say so."""
        last = self.rollout.step + 1 == len(self.rollout.steps) and self.rollout.since > 0
        return last and self._dealer.is_over(self.rollout)

    def _done(self, reason: str) -> None:
        self.rollout = self.rollout.becoming(status="promoted", told=reason)
        self.say(f"{self._tag} answers all requests")

    def _step(self) -> None:
        """Put a step in force and watch it until it is good."""
        rollout = self.rollout
        if not rollout.since or not self._dealer.is_in_force(rollout):
            try:
                self._weigh(rollout.share)
            except _AskedError as asked:
                self._obey(str(asked))
            except UnfitError as error:
                self._go_back(str(error), BAD)
            except HoneError as error:
                self._not_begun(error)
            now = time.time()
            self.rollout = rollout.becoming(since=now, turns=(*rollout.turns, now))
        self.say(f"{self.rollout.share:g} % of the requests go to {self._tag}")
        self._watch()

    def _watch(self) -> None:
        """Wait until the step that is in force is good.

        Its window begins here, also where another process began to watch it: what went by meanwhile only the clock on
        the wall could tell, which may jump.
        """
        begun = time.monotonic()
        blind_since: float | None = None
        while True:
            self._obey(take_wish(self.rollout.name))
            try:
                self.verdict = self._found()
                blind_since = None
            except (RefusedError, UnreachableError) as error:
                blind_since = blind_since or time.monotonic()
                if time.monotonic() - blind_since >= self.blind_s:
                    self._go_back(f"nothing is known of it: {error}", UNDECIDED)
                time.sleep(self.poll_s)
                continue
            waited = time.monotonic() - begun
            if self.verdict["verdict"] == "bad":
                self._go_back(self.verdict["reason"], BAD)
            if self._is_enough() and waited >= self.rollout.window_s:
                self.say(f"{self.verdict['verdict']}: {self.verdict['reason']}")
                return
            if waited >= max(self.rollout.patience_s, self.rollout.window_s):
                self._pause(self.verdict["reason"])
            time.sleep(self.poll_s)

    def _found(self) -> dict[str, Any]:
        """Return the verdict of the dealer, and of labels where they are asked for."""
        return with_labels(self._dealer.verdict(self.rollout), self.rollout, self._labeled)

    def _is_enough(self) -> bool:
        """Return whether a step may end with the verdict as it is."""
        found = self.verdict["verdict"]
        return found == "good" or (found == "undecided" and not self._dealer.wants_proof)

    def _not_begun(self, error: HoneError) -> NoReturn:
        """End a rollout whose first step the service refuses; at a later one it pauses with the weights as they are."""
        if self.rollout.step:
            self._pause(f"the service doesn't take {self.rollout.share:g} %: {error}", exit_code=1)
        with suppress(HoneError):
            self._dealer.go_back(self.rollout)
        self.rollout = self.rollout.becoming(status="aborted", told=str(error))
        raise RolloutError(f"the rollout of {self._tag} is not begun: {error}") from error

    @property
    def _tag(self) -> str:
        return f"{self.rollout.name}:{self.rollout.canary}"

    def _weigh(self, percent: float) -> None:
        with _entered(self.rollout, f"{percent:g} % of the requests", self.verdict):
            self._dealer.weigh(self.rollout, percent, self._heed)

    def _heed(self) -> None:
        """End what is waited for when another command asked for something."""
        if wish := take_wish(self.rollout.name):
            raise _AskedError(wish)

    def _obey(self, wish: str) -> None:
        """Do what another command asked for."""
        if wish == "abort":
            self.abort("asked for")
            raise RolloutError(f"the rollout of {self._tag} was aborted")
        if wish == "pause":
            self._pause("asked for", exit_code=1)

    def _pause(self, reason: str, exit_code: int = UNDECIDED) -> NoReturn:
        self.rollout = self.rollout.becoming(status="paused", told=reason)
        share = f"{self.rollout.share:g} % of the requests stay with it"
        raise RolloutError(
            f"the rollout of {self._tag} is paused, {share}: {reason}; hone rollout resume {self.rollout.name} goes on",
            exit_code,
        )

    def _go_back(self, reason: str, exit_code: int) -> NoReturn:
        """Give all requests to the stable version again, and end."""
        try:
            self._return(f"rolled back: {reason}")
        except HoneError as error:
            self.rollout = self.rollout.becoming(status="paused", told=f"could not be rolled back: {error}")
            raise RolloutError(
                f"{self._tag}: {reason}; it still gets {self.rollout.share:g} % of the requests, because {error}; "
                f"hone rollout abort {self.rollout.name} tries again",
                exit_code,
            ) from error
        self.rollout = self.rollout.becoming(status="rolled back", told=reason)
        raise RolloutError(f"{self._tag} is rolled back: {reason}", exit_code)

    def abort(self, reason: str) -> None:
        """Give all requests to the stable version again, whatever the verdict.

        Raises:
            HoneError: the service can't be reached, or refuses.
        """
        self._return(f"aborted: {reason}")
        self.rollout = self.rollout.becoming(status="aborted", told=reason)

    def _return(self, what: str) -> None:
        with _entered(self.rollout, what, self.verdict, back=True):
            self._dealer.go_back(self.rollout)

    def _finish(self) -> None:
        """Promote what does well with all of the requests."""
        rollout = self.rollout
        if rollout.promotion is not None and not _is_champion(rollout):
            found = _promotion(rollout.promotion)
            try:
                promote(found, f"rollout: {self.verdict['reason']}"[:1000])
            except HoneError as error:
                self._pause(f"it is not promoted: {error}", exit_code=getattr(error, "exit_code", 1))
            self.say(f"{rollout.name}@champion is {self._tag}")
        with _entered(rollout, "all requests, without a split", self.verdict):
            self._dealer.finish(rollout)
        self._done(self.verdict["reason"])


@contextmanager
def _entered(rollout: Rollout, what: str, verdict: dict[str, Any], *, back: bool = False) -> Iterator[None]:
    """Record a step in the registry's history before it is made, and what became of it."""
    stable, canary = (f"{rollout.name}:{version}" for version in (rollout.stable, rollout.canary))
    with entered("rollout", canary) as details:
        details["from"], details["to"] = (canary, stable) if back else (stable, canary)
        details["reason"] = what + (f" ({rollout.reason})" if rollout.reason else "")
        details["evidence"] = json.dumps(verdict.get("checks", []))
        yield


def _is_champion(rollout: Rollout) -> bool:
    """Return whether a rollout that was killed had promoted the canary already."""
    champion = registered(rollout.name).aliases.get("champion")
    return champion is not None and champion.version == rollout.canary


def _promotion(content: dict[str, Any]) -> Promotion:
    gates = tuple(Gate(**gate) for gate in content["gates"])
    return Promotion(content["tag"], content["before"], gates)


def kept_promotion(found: Promotion) -> dict[str, Any]:
    """Return what the gates found, as plain values."""
    return {"tag": found.tag, "before": found.before, "gates": [asdict(gate) for gate in found.gates]}
