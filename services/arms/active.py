"""A split in force in a worker: which arm a request goes to, and what its arms count."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..http.failures import RequestError
from ..http.responses import Head
from .counts import ARM, BY_CALLER, BY_FALLBACK, BY_SPLIT, ArmCounts, Done, SharedArms
from .evidence import Evidence
from .split import Split, StickyArms, chance_arm
from .table import Table


class ActiveSplit:
    """A split whose arms are loaded.

    Args:
        split: the weights that count are those of the table.
        folder: that the workers of the server share.
        arms: of the worker, which adds up what they do.

    Attributes:
        counts: of each arm by its name, by how requests came to it.
    """

    def __init__(self, split: Split, folder: Path, arms: SharedArms) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._split = split
        self.table = Table(folder / f"split-{split.id}.weights", split.weights)
        self.evidence = Evidence(folder, split, arms)
        self.done: dict[str, Done] = arms.of(split)
        self._places = {arm.name.encode(): place for place, arm in enumerate(split.arms)}
        self._sticky = split.sticky.lower().encode()
        self._deal = StickyArms((split.salt or split.model).encode(), len(split.arms)).choose
        self.counts = {
            arm.name: {
                by: ArmCounts(split.model, arm, by, self.done[arm.name] if by == BY_SPLIT else None, self._sticky)
                for by in (BY_SPLIT, BY_CALLER, BY_FALLBACK)
            }
            for arm in split.arms
        }

    @property
    def split(self) -> Split:
        """The split with the weights that are in force."""
        weights = self.table.read()
        arms = (arm.model_copy(update={"weight": float(w)}) for arm, w in zip(self._split.arms, weights, strict=True))
        return self._split.model_copy(update={"arms": tuple(arms)})

    def place(self, head: Head) -> tuple[int, str]:
        """Return the arm of a request by its place, and how it came to it.

        Raises:
            RequestError: the caller names an arm that isn't there.
        """
        if ARM in head:
            place = self._places.get(head[ARM])
            if place is None:
                raise RequestError(f"no arm '{head[ARM][:100].decode('latin-1')}'; there is {self._known()}")
            return place, BY_CALLER
        caller = head.get(self._sticky) if self._sticky else None
        if caller:
            return self._deal(caller, self.table.read()), BY_SPLIT
        return chance_arm(self.table.read()), BY_SPLIT

    def _known(self) -> str:
        return ", ".join(arm.name for arm in self._split.arms)

    def flush(self) -> None:
        """Bring the metrics up to date."""
        for by in self.counts.values():
            for counts in by.values():
                counts.flush()
        for arm in self.split.arms:
            self.counts[arm.name][BY_SPLIT].weigh(arm.weight)

    def forget(self) -> None:
        """Show no weights any more, when it is over; what was counted stays."""
        self.flush()
        for by in self.counts.values():
            by[BY_SPLIT].weigh(0.0)


class Splits:
    """The splits in force in a worker, by model.

    Args:
        folder: that the workers of the server share; None: there is one worker.
        arms: of the worker, which adds up what they do.
    """

    def __init__(self, folder: Path | None, arms: SharedArms) -> None:
        self.active: dict[str, ActiveSplit] = {}
        self._folder = folder
        self._arms = arms

    def replace(self, splits: Iterable[Split]) -> None:
        """Put these in force, and no others; one that is there goes on, with the weights of its table."""
        before, self.active = self.active, {}
        for split in splits:
            known = before.get(split.model)
            same = known is not None and known.split.id == split.id
            if known is None or not same:
                self._folder = self._folder or Path(tempfile.mkdtemp(prefix="hone-"))
                known = ActiveSplit(split, self._folder, self._arms)
            self.active[split.model] = known
        for name, active in before.items():
            if self.active.get(name) is not active:
                active.forget()
        self._arms.forget({active.split.id for active in self.active.values()})

    def plain(self) -> list[dict[str, Any]]:
        """Return them as plain values."""
        return [active.split.model_dump() for active in self.active.values()]

    def versions(self, name: str) -> set[str]:
        """Return the versions of a model that its split needs."""
        return self.active[name].split.versions if name in self.active else set()

    def choose(self, name: str, head: Head) -> tuple[str, ArmCounts | None]:
        """Return the version that answers a request, and the counts of its arm; empty where nothing is split.

        Raises:
            RequestError: the caller names an arm that isn't there.
        """
        active = self.active.get(name)
        if active is None:
            return "", None
        place, by = active.place(head)
        arm = active.split.arms[place]
        return arm.version, active.counts[arm.name][by]

    def flush(self) -> None:
        """Bring the metrics up to date, and what other workers see of this one's."""
        for active in self.active.values():
            active.flush()
        self._arms.publish()
