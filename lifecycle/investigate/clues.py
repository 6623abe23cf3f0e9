"""What was found to have changed, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["version", "change", "traffic", "input", "output", "caller", "pod", "stage", "failure"]

ACTIONS: dict[Kind, str] = {
    "version": "go back: hone registry rollback {name}, or hone rollout abort {name} while one is under way",
    "change": "see what it was about: hone registry history {name}",
    "traffic": "more replicas, or a limit a caller: runbook, HoneShedding",
    "input": "find out who sends it and since when; runbook, HoneDrift; hone retrain request {name} where it stays",
    "output": "where no input has moved, see whether it answers as proven: hone doctor {name}; runbook, HoneDrift",
    "caller": "ask that caller; a rate limit keeps the others safe: docs/serving.md, Security",
    "pod": "look at its node, and take it out: runbook, HonePodDown",
    "failure": "the log says why: runbook, HoneErrorsHigh",
    "stage": "runbook, HoneSlow: waiting is load, one batch in the runtime is the host or the rows",
}
"""By the names of the alerts in k8s/monitoring/runbook.md."""


@dataclass(frozen=True)
class Clue:
    """Something that is other than before.

    Attributes:
        kind: what it is of.
        what: its name: a version, a column, a caller's unit, a pod, a stage.
        strength: 0 to 1: the lower bound of the share that changed, of a time that grew the part that is new; an event
            counts by how near it is.
        words: what was before, what is now, and what that rests on.
    """

    kind: Kind
    what: str
    strength: float
    words: str


@dataclass(frozen=True)
class Investigation:
    """All of it.

    Attributes:
        model: name.
        before, after: the times that are compared, ISO 8601, from and to.
        clues: the strongest first.
        same: what was looked at and is as before, in words.
        unknown: what could not be looked at, and what would let it be.
    """

    model: str
    before: tuple[str, str]
    after: tuple[str, str]
    clues: tuple[Clue, ...]
    same: tuple[str, ...] = ()
    unknown: tuple[str, ...] = field(default=())

    def action(self, clue: Clue) -> str:
        return ACTIONS[clue.kind].format(name=self.model)

    def as_json(self) -> dict[str, Any]:
        return {"schema": 1, "kind": "investigation", **asdict(self), "actions": [self.action(c) for c in self.clues]}
