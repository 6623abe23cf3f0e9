"""What speaks for an arm and against it, since its split began: counts between changes of the weights, and a verdict.

The counts at each change are kept in a file that the workers of a server share. The time that few of the stable arm's
answers take longer than is chosen once, from the first of them, and held against all that come later.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import orjson

from hone.evidence.canary import RISK, Beside, Check, Moments, Ruling, agreement, compare, ruling
from hone.files import atomic_write, locked

from .counts import Done
from .split import Split

FEWEST = 500
"""Answers of the stable arm that its p99 is taken from: five are beyond it."""

BEYOND = 0.01
"""Share of answers that take longer than the p99."""

MOMENT_S = 1.0
"""Between two looks at arms that are in processes of their own: what is slow in between is one moment's."""

Snapshot = dict[str, dict[str, Any]]
"""What each arm had done at a moment."""


@dataclass(frozen=True)
class Limits:
    """What a new version may be worse by and still be good.

    Attributes:
        errors: share of requests that may fail beyond the stable arm's.
        p99: share of answers that may take longer than the stable arm's p99, beyond the stable arm's own.
        agreement: least share of compared rows whose answers agree; 0: that isn't asked.
    """

    errors: float = 0.01
    p99: float = 0.02
    agreement: float = 0.0


class Counted(Protocol):
    """What knows how much the arms of a split have done."""

    def total(self, split: Split) -> dict[str, Done]:
        """Return it by the arms' names, of everything that serves them."""

    def processes(self, split: Split) -> Mapping[str, int]:
        """Return in how many processes of its own each arm is; nothing where all processes serve all arms.

        Such a process that stands still for a while makes one arm slow, and many requests at once.
        """


class Evidence:
    """The kept counts of one split.

    Args:
        folder: that the workers of a server share.
        split: whose id names the file.
        arms: what all workers have counted.
    """

    def __init__(self, folder: Path, split: Split, arms: Counted) -> None:
        self._file = folder / f"split-{split.id}.json"
        self._split = split
        self._arms = arms

    def begin(self, weights: tuple[float, ...]) -> None:
        """Note that other weights are in force from now on."""
        with locked(self._file.with_suffix(".lock")):
            kept = self._read()
            kept["stages"].append({"at": time.time(), "weights": weights, "counts": self._now()})
            self._write(kept)

    def seen(self) -> dict[str, Any]:
        """Return what the arms of all workers have done since the split began, as plain values."""
        return {"arms": {name: _figures(done) for name, done in self._arms.total(self._split).items()}}

    def verdict(self, arm: str, limits: Limits, risk: float = RISK) -> tuple[Ruling, dict[str, Any]]:
        """Return the verdict on an arm beside the stable one, and what it rests on, as plain values.

        Args:
            risk: that an arm which is as good is ever called bad, shared out among the questions.
        """
        now, stable = self._arms.total(self._split), self._split.stable.name
        kept = self._with_moment(arm, self._with_limit(now[stable]))
        marks = [*kept["stages"], {"counts": {name: done.plain() for name, done in now.items()}}]
        stages = [_between(first["counts"], last["counts"]) for first, last in pairwise(marks)]
        checks = self._checks(arm, limits, stages, self._since(kept["limit"], marks), kept, risk)
        limit_ms = kept["limit"]["bound"] * 1e3 if kept["limit"] else None
        return ruling(checks), {**self.seen(), "stable_p99_ms": limit_ms, "limits": asdict(limits)}

    def _checks(
        self, arm: str, limits: Limits, stages: list[dict[str, Done]], later: list[dict[str, Done]],
        kept: Mapping[str, Any], risk: float,
    ) -> list[Check]:  # fmt: skip
        stable = self._split.stable.name
        asked = 3 if limits.agreement else 2
        risk /= asked
        failures = [
            Beside(s[arm].errors, s[arm].requests, s[stable].errors, s[stable].requests) for s in stages
        ]  # fmt: skip
        bound = kept["limit"]["bound"] if kept["limit"] else 0.0
        slow = [
            Beside(s[arm].beyond(bound), s[arm].answered, s[stable].beyond(bound), s[stable].answered) for s in later
        ]
        moments = Moments(**kept["moments"][arm]) if arm in kept.get("moments", {}) else None
        checks = [compare("errors", failures, limits.errors, risk), compare("p99", slow, limits.p99, risk, moments)]
        if limits.agreement:
            compared, agreeing = (sum(getattr(s[arm], name) for s in stages) for name in ("compared", "agreeing"))
            checks.append(agreement(agreeing, compared, limits.agreement, risk))
        return checks

    def _since(self, limit: Any, marks: list[dict[str, Any]]) -> list[dict[str, Done]]:
        """Return the stages that came after the stable arm's p99 was taken, the one that it fell into cut there."""
        if limit is None:
            return []
        rest = [limit, *marks[limit["stages"] :]]
        return [_between(first["counts"], last["counts"]) for first, last in pairwise(rest)]

    def _with_limit(self, stable: Done) -> dict[str, Any]:
        """Return what is kept, with the stable arm's p99 as soon as there is enough to take it from."""
        if self._read()["limit"] is None and stable.answered >= FEWEST:
            with locked(self._file.with_suffix(".lock")):
                kept = self._read()
                if kept["limit"] is None:
                    bound, stages = stable.bound_above(BEYOND), len(kept["stages"])
                    kept["limit"] = {"bound": bound, "stages": stages, "counts": self._now()}
                    self._write(kept)
        return self._read()

    def _with_moment(self, arm: str, kept: dict[str, Any]) -> dict[str, Any]:
        """Return what is kept, with what was slow since the last look; where arms share their processes, as it is."""
        processes = self._arms.processes(self._split)
        if kept["limit"] is None or not processes:
            return kept
        with locked(self._file.with_suffix(".lock")):
            kept, at = self._read(), time.time()
            last = kept.setdefault("looks", {}).get(arm, {"at": 0.0, "counts": kept["limit"]["counts"]})
            moments = Moments(**kept.setdefault("moments", {}).get(arm, {}))
            if abs(at - last["at"]) >= MOMENT_S:  # also where the clock went back
                counts = self._now()
                moments = _and_since(moments, last["counts"], counts, (arm, self._split.stable.name), kept, processes)
                kept["looks"][arm] = {"at": at, "counts": counts}
            kept["moments"][arm] = asdict(moments)
            self._write(kept)
        return kept

    def _now(self) -> Snapshot:
        return {name: done.plain() for name, done in self._arms.total(self._split).items()}

    def _read(self) -> dict[str, Any]:
        try:
            kept: dict[str, Any] = orjson.loads(self._file.read_bytes())
        except FileNotFoundError:
            nothing = {arm.name: Done().plain() for arm in self._split.arms}
            first = {"at": time.time(), "weights": self._split.weights, "counts": nothing}
            return {"limit": None, "stages": [first]}
        return kept

    def _write(self, kept: Mapping[str, Any]) -> None:
        atomic_write(self._file, orjson.dumps(kept), mode=0o600, durable=False)


def _between(first: Snapshot, last: Snapshot) -> dict[str, Done]:
    """Return what each arm did between two moments."""
    nothing = Done()
    return {name: nothing.plus(last[name]).plus(first[name], -1) for name in last}


def _and_since(
    moments: Moments, first: Snapshot, last: Snapshot, arms: tuple[str, str], kept: Mapping[str, Any],
    processes: Mapping[str, int],
) -> Moments:  # fmt: skip
    """Return moments with the one between two looks.

    An arm that is no worse has its share of the slow requests; or of the processes, any of which may stand still.
    """
    ours, theirs = (_between(first, last)[name] for name in arms)
    bound, (mine, others) = kept["limit"]["bound"], (processes.get(name, 0) for name in arms)
    by_requests = ours.answered / max(1, ours.answered + theirs.answered)
    weight = max(by_requests, mine / max(1, mine + others))
    return moments.plus(ours.beyond(bound), theirs.beyond(bound), weight)


def _figures(done: Done) -> dict[str, Any]:
    share = done.errors / done.requests if done.requests else None
    p99 = done.bound_above(BEYOND) * 1e3 if done.answered else None
    figures = {"requests": done.requests, "errors": done.errors, "error_share": share, "p99_ms": p99}
    return figures | {"bins": done.bins, "compared": done.compared, "agreeing": done.agreeing}
