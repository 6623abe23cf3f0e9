"""Are more of the new version's answers wrong? From what services keep of their answers, and labels that come later.

Of a request's rows the first counts: rows of one request are alike, and the bounds want answers that know nothing of
each other. An answer counts once its label is there. While weights stand still, a wrong answer that has a label is the
new version's with the chance of its share of the answers that have one; the bounds are those of `hone.evidence.canary`.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import HoneError
from hone.evidence.canary import RISK, Beside, Check, compare, ruling
from hone.services.status.splitting import UnreachableError
from hone.traffic.keys import read_key

from ..experiments.figures import MARGIN_S, decided
from ..feedback.joined import Joined, joined
from .state import Labels, Rollout

LOOK_S = 10.0
"""Between two readings of what is kept."""

DEALT = ("", "split")
"""How an answer came to its version: neither named by the caller, nor as a fallback."""


@dataclass
class Labeled:
    """What labels say of a rollout.

    Args:
        labels: where answers are kept, and how many more may be wrong.
    """

    labels: Labels
    _read: float = field(default=float("-inf"), init=False)
    _check: Check | None = field(default=None, init=False)
    _turns: int = field(default=0, init=False)

    def beside(self, verdict: dict[str, Any], rollout: Rollout) -> dict[str, Any]:
        """Return a dealer's verdict with what labels say: bad when either is, good when both are.

        Raises:
            UnreachableError: what is kept can't be read.
        """
        check = self._look(rollout)
        found = ruling([check])
        if verdict["verdict"] == "bad":
            return {**verdict, "checks": [*verdict["checks"], asdict(check)]}
        reasons = [verdict["reason"], found.reason]
        if found.verdict == "bad" or verdict["verdict"] == "good":
            overall, reasons = found.verdict, reasons if found.verdict == "good" else [found.reason]
        else:
            overall = "undecided"
            reasons = reasons if found.verdict == "undecided" else [verdict["reason"]]
        return {
            **verdict,
            "verdict": overall,
            "reason": "; ".join(reasons),
            "checks": [*verdict["checks"], asdict(check)],
        }

    def _look(self, rollout: Rollout) -> Check:
        """Return the check, read anew once in a while, and when a step began."""
        now = time.monotonic()
        if self._check is None or now - self._read >= LOOK_S or self._turns != len(rollout.turns):
            try:
                self._check = checked(rollout, self.labels)
            except HoneError as error:
                raise UnreachableError(f"labels: {error}") from None
            self._read, self._turns = time.monotonic(), len(rollout.turns)
        return self._check


def check_readable(labels: Labels, name: str) -> None:
    """Raise HoneError when the folder isn't there, or its key doesn't fit."""
    key = read_key(labels.key) if labels.key else None
    next(joined(Path(labels.folder), name, key=key), None)


def checked(rollout: Rollout, labels: Labels) -> Check:
    """Compare the shares of wrong answers.

    Raises:
        HoneError: the folder or its key can't be read.
    """
    key = read_key(labels.key) if labels.key else None
    since = rollout.turns[0] if rollout.turns else time.time()
    answers = joined(Path(labels.folder), rollout.name, since_s=since, key=key)
    return compare("labels", counted(rollout, answers, labels.output), labels.allowed, RISK)


def counted(rollout: Rollout, answers: Iterable[Joined], output: str = "") -> Sequence[Beside]:
    """Count wrong answers between changes of the weights; around a change none counts."""
    turns = rollout.turns
    stages = [Beside(0, 0, 0, 0) for _ in turns]
    for one in answers:
        stage = bisect_right(turns, one.time - MARGIN_S) - 1
        turning = stage + 1 < len(turns) and one.time > turns[stage + 1] - MARGIN_S
        wrong = None if stage < 0 or turning or one.by not in DEALT else is_wrong(one, output)
        if wrong is None:
            continue
        at = stages[stage]
        if one.version == rollout.canary:
            stages[stage] = replace(at, marked=at.marked + wrong, of=at.of + 1)
        elif one.version == rollout.stable:
            stages[stage] = replace(at, stable_marked=at.stable_marked + wrong, stable_of=at.stable_of + 1)
    return stages


def is_wrong(one: Joined, output: str = "") -> bool | None:
    """Return whether the first row of an answer is another class than its label; None where that isn't known."""
    found = one.outputs.get(output) if output else next(iter(one.outputs.values()), None)
    if one.label is None or found is None or not len(found):
        return None
    labels = np.asarray(one.label).reshape(-1)
    if len(labels) != len(found):
        return None
    return bool(decided(found[:1], labels[:1])[0] != labels.astype(str)[0])
