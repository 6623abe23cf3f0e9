"""What the versions behind nginx have done, from the metrics of their replicas, as verdicts take it.

A replica that is started again counts from nothing; what it had counted until the last look is kept in a file.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from hone.files import atomic_write
from hone.services.arms.counts import BOUNDS, FAILED, Done
from hone.services.arms.split import Split
from hone.services.observe.metrics import OK
from hone.services.status.asking import Access, get
from hone.services.status.figures import LABEL, SAMPLE

from .fleet import DownError, Fleet
from .state import Life


class Scraped(Done):
    """What a replica did, from its metrics: latencies are known up to a few bounds only."""

    def bound_above(self, share: float) -> float:
        """Return the least of the bounds that at most a share of the answers took longer than."""
        over, wanted = self.bins[-1], share * sum(self.bins)
        for place in range(len(BOUNDS) - 1, 0, -1):
            if over + self.bins[place] > wanted:
                return BOUNDS[place]
            over += self.bins[place]
        return BOUNDS[0]


@dataclass(frozen=True)
class ReplicaCounts:
    """The counts of a rollout's arms, as they are at the first question: a verdict compares what is of one moment.

    Args:
        fleet: the replicas.
        versions: by the arms' names.
        file: that keeps what was counted.
    """

    fleet: Fleet
    versions: Mapping[str, str]
    file: Path
    _found: dict[str, Done] = field(default_factory=dict)

    def total(self, split: Split) -> dict[str, Done]:
        """Return what the arms have done, by name; of a replica that doesn't answer, what it had done before."""
        if not self._found:
            self._found.update(self._look(split))
        return dict(self._found)

    def processes(self, split: Split) -> dict[str, int]:
        """Return how many replicas each arm has."""
        lives = self._lives()
        return {arm: sum(life.version == version for life in lives) for arm, version in self.versions.items()}

    def _look(self, split: Split) -> dict[str, Done]:
        kept = self._kept()
        for life in self._lives():
            now = self._asked(life, split.model)
            if now is None:
                continue
            before = kept.get(life.id, {"version": life.version, "past": Done().plain(), "now": Done().plain()})
            if now.requests < before["now"]["requests"]:
                before["past"] = Done().plus(before["past"]).plus(before["now"]).plain()
            kept[life.id] = {**before, "now": now.plain()}
        atomic_write(self.file, orjson.dumps(kept), mode=0o600, durable=False)
        return {arm: self._of(version, kept) for arm, version in self.versions.items()}

    def _lives(self) -> tuple[Life, ...]:
        try:
            return self.fleet.seen.lives
        except DownError:
            return ()

    def _of(self, version: str, kept: Mapping[str, Any]) -> Done:
        found: Done = Done()
        for one in kept.values():
            if one["version"] == version:
                found = found.plus(one["past"]).plus(one["now"])
        return Scraped(**found.plain())

    def _kept(self) -> dict[str, Any]:
        try:
            kept: dict[str, Any] = orjson.loads(self.file.read_bytes())
        except FileNotFoundError:
            return {}
        return kept

    def _asked(self, life: Life, model: str) -> Done | None:
        try:
            status, body = get(f"http://127.0.0.1:{life.port}", "/metrics", Access())
        except OSError:
            return None
        return done_of(body.decode(), model) if status == OK else None


def done_of(text: str, model: str) -> Done:
    """Return what a replica did with the requests for a model, from the text that its `/metrics` answers."""
    answered, failed = 0, 0
    cumulative: dict[float, float] = {}
    for name, inside, value in SAMPLE.findall(text):
        if name not in ("hone_requests_total", "hone_request_seconds_bucket"):
            continue
        labels = dict(LABEL.findall(inside))
        if labels.get("model") != model:
            continue
        if name == "hone_request_seconds_bucket":
            bound = float(labels["le"])
            cumulative[bound] = cumulative.get(bound, 0.0) + float(value)
        elif labels["status"] == str(OK):
            answered += int(float(value))
        elif labels["status"].isdigit() and int(labels["status"]) >= FAILED:
            failed += int(float(value))
    return Done(answered + failed, failed, _bins(cumulative, answered))


def _bins(cumulative: Mapping[float, float], answered: int) -> list[int]:
    """Return how many answers took how long; what wasn't answered well counts as the fastest of all requests."""
    bins = [0] * (len(BOUNDS) + 1)
    below, others = 0.0, max(0.0, cumulative.get(math.inf, 0.0) - answered)
    for bound in sorted(cumulative):
        count = cumulative[bound] - below
        below = cumulative[bound]
        left_out = min(count, others)
        others -= left_out
        bins[bisect_left(BOUNDS, bound)] += int(count - left_out)
    return bins
