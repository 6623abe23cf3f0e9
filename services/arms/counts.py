"""What the arms of a split have done: for Prometheus, and as counts of all workers from which verdicts are made."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..observe.metrics import OK, SECONDS, arm_families
from ..observe.shadow import Comparison, Shadow
from ..observe.sums import SharedSums
from ..observe.tallies import Tally
from .split import Arm, Split

BOUNDS = tuple(round(0.0005 * 1.2**step, 7) for step in range(57))
"""Of latencies, seconds: half a millisecond to a quarter of a minute. A p99 that is 20 % larger is in the next bin."""

ARM = b"x-hone-arm"
"""Header by which a caller names an arm, and by which an answer says which one it is from."""

FAILED = 500
"""Statuses from here on are the service's doing."""

BY_SPLIT, BY_CALLER, BY_FALLBACK = "split", "header", "fallback"
"""How a request came to its arm: dealt, named by the caller, or after another arm failed on it. Only those that were
dealt say how arms compare: whoever names an arm may send other requests, and a fallback's have failed once."""


@dataclass
class Done:
    """What an arm has done with the requests that were dealt to it.

    Attributes:
        requests: of it.
        errors: of them those with a status from 500 up.
        bins: latencies of the others, by `BOUNDS`; one more for those beyond.
        compared, agreeing: rows that the stable arm computed, too, and those whose answers agree.
    """

    requests: int = 0
    errors: int = 0
    bins: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    compared: int = 0
    agreeing: int = 0

    @property
    def answered(self) -> int:
        return self.requests - self.errors

    def beyond(self, bound: float) -> int:
        """Return how many answers took longer than one of the `BOUNDS`."""
        return sum(self.bins[bisect_left(BOUNDS, bound) + 1 :])

    def bound_above(self, share: float) -> float:
        """Return the largest of the `BOUNDS` that at least a share of the answers took longer than."""
        over, wanted = self.bins[-1], share * sum(self.bins)
        place = len(BOUNDS) - 1
        while place and over < wanted:
            over += self.bins[place]
            place -= 1
        return BOUNDS[place]

    def plain(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("requests", "errors", "bins", "compared", "agreeing")}

    def plus(self, other: Mapping[str, Any], sign: int = 1) -> Done:
        """Return it with, or with sign -1 without, what another says."""
        bins = [mine + sign * theirs for mine, theirs in zip(self.bins, other["bins"], strict=True)]
        rest = {name: getattr(self, name) + sign * other[name] for name in self.plain() if name != "bins"}
        return Done(bins=bins, **rest)


class ArmCounts:
    """What one arm does in this worker, of the requests that come to it in one way.

    Args:
        model: that is split.
        arm: of it.
        by: how the requests come.
        done: gets what counts for verdicts; None where these don't.
        sticky: header, in small letters, by which callers are dealt out; empty: chance does.

    Attributes:
        field: of an answer's head, that says which arm it is from.
        shadow: computes a share of the requests with the stable arm, too.
    """

    def __init__(self, model: str, arm: Arm, by: str, done: Done | None = None, sticky: bytes = b"") -> None:
        self.name, self.by, self.sticky = arm.name, by, sticky
        self.field = (ARM, arm.name.encode())
        self.shadow: Shadow | None = None
        self._labels = {"model": model, "arm": arm.name, "version": arm.version}
        self._done = done
        self._statuses: dict[int, int] = {}
        self._latency = Tally(SECONDS)

    def request(self, status: int, seconds: float) -> None:
        """Count a finished request."""
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._latency.observe(seconds)
        done = self._done
        if done is None:
            return
        if status == OK:
            done.requests += 1
            done.bins[bisect_left(BOUNDS, seconds)] += 1
        elif status >= FAILED:  # what is wrong with a request itself says nothing of the arm
            done.requests += 1
            done.errors += 1

    def flush(self) -> None:
        """Hand everything counted since the last time to the client library."""
        families, labels = arm_families(), self._labels
        for status, count in self._statuses.items():
            families["requests"].labels(**labels, by=self.by, status=str(status)).inc(count)
        failed = sum(count for status, count in self._statuses.items() if status >= FAILED)
        families["errors"].labels(**labels, by=self.by).inc(failed)
        self._statuses.clear()
        self._latency.flush(families["latency"].labels(**labels))

    def compared(self, comparison: Comparison) -> None:
        """Count a comparison with the stable arm's answer; where that one failed there is nothing to compare."""
        if self._done is not None and not comparison.problem:
            self._done.compared += comparison.rows
            self._done.agreeing += comparison.agreeing

    def weigh(self, percent: float) -> None:
        """Show the weight of the arm."""
        arm_families()["weight"].labels(**self._labels).set(percent)


class SharedArms:
    """What the arms of every split have done: in this worker, and on demand in all of them together.

    Args:
        folder: that the workers of the server share; None: there is one worker.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._sums = SharedSums(folder, "arms")
        self._done: dict[str, dict[str, Done]] = {}
        self._published = -1

    def of(self, split: Split) -> dict[str, Done]:
        """Return what this worker's arms have done, by name; it goes on while the split has the same id."""
        return self._done.setdefault(split.id, {arm.name: Done() for arm in split.arms})

    def forget(self, known: set[str]) -> None:
        """Leave out every split but those of these ids."""
        for gone in self._done.keys() - known:
            del self._done[gone]

    def total(self, split: Split) -> dict[str, Done]:
        """Return what the arms have done in all workers, by name."""
        found = dict(self.of(split))
        for other in self._sums.others():
            for name, done in other.get(split.id, {}).items():
                found[name] = found[name].plus(done)
        return found

    def processes(self, split: Split) -> dict[str, int]:
        """Return nothing: every worker serves every arm."""
        return {}

    def publish(self) -> None:
        """Write this worker's for the others, if something came since the last time."""
        arms = [done for split in self._done.values() for done in split.values()]
        now = sum(done.requests + done.compared for done in arms)
        if not self._sums.shared or (now == self._published):
            return
        content = {split: {name: done.plain() for name, done in by_arm.items()} for split, by_arm in self._done.items()}
        if self._sums.publish(content):
            self._published = now
