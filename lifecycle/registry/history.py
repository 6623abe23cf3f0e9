"""Who changed what an alias means: when, why, from which version to which, and on what evidence.

The history is an audit log of its own, chained by hashes: `hone audit verify` checks it as it checks any other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from hone.audit import REQUESTED, AuditLog, Details, operator, recorded, records, verify
from hone.store.registry import HISTORY, folder

logger = logging.getLogger("hone.registry")


@dataclass(frozen=True)
class Change:
    """A record of the history.

    Attributes:
        time: ISO 8601, UTC.
        actor: who.
        action: promote, rollback, annotate, propose or rollout.
        model: that it was about: NAME, or the tag that was asked for.
        outcome: done or failed.
        details: from, to, reason, gates or evidence (JSON).
    """

    time: str
    actor: str
    action: str
    model: str
    outcome: str
    details: Details

    @property
    def name(self) -> str:
        return self.model.partition(":")[0]


def history_file() -> Path:
    return folder() / HISTORY


@contextmanager
def entered(action: str, model: str) -> Iterator[Details]:
    """Record a change before it is made, and what became of it; yield the details, to be filled in.

    Raises:
        HoneError: it can't be recorded, so it isn't made; or whatever the block raises.
    """
    folder().mkdir(parents=True, exist_ok=True)
    with recorded(AuditLog(history_file()), operator(), action, model, logger.warning) as details:
        yield details


def changes(name: str | None = None) -> list[Change]:
    """Return what was done and what failed, oldest first, of one model or of all; the chain is checked first.

    Raises:
        HoneError: a record was changed or taken out; the message names the line.
    """
    if not history_file().is_file():
        return []
    verify(history_file())
    found = [
        Change(one["time"], one["actor"], one["action"], one["subject"], one["outcome"], one["details"])
        for _, one in records(history_file())
        if one is not None and one["outcome"] != REQUESTED
    ]
    return [change for change in found if name in (None, change.name)]
