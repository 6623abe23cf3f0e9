"""Tell people once of columns that have moved, and once when that is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..watching.alerts import Alert
from ..watching.watch import Memory, Watching
from .findings import Drift


def to_tell(drift: Drift, memory: Memory, repeat_s: float, now_s: float) -> Alert | None:
    """Return what people should be told after a look; None when it is nothing new.

    Told are columns that have not been told yet, all of them again after `repeat_s`, and the end: when no column is
    drifting any more, and every one that was is known not to.
    """
    known = memory.told.get(drift.model)
    names = [one.column for one in drift.drifted] or (["all inputs together"] if drift.verdict == "missed" else [])
    if names:
        before = set(known["columns"]) if known else set()
        if set(names) <= before and known and now_s - known["at"] < repeat_s:
            return None
        memory.told[drift.model] = {"columns": sorted(before | set(names)), "at": now_s}
        lines = [
            f"{one.column}: {one.describe()} (change {one.effect:.2f}, at least {one.low:.2f})"
            for one in drift.drifted[:10]
        ]
        more = len(drift.drifted) - len(lines)
        lines += [f"and {more} more columns"] if more > 0 else []
        lines.append(f"{drift.rows:,} rows from {drift.first} on; hone drift report {drift.model} draws them.")
        return Alert(drift.model, "drift", f"{drift.model}: {drift.headline()}", tuple(lines), _details(drift, "drift"))
    if known is None:
        return None
    states = {one.column: one.verdict for one in drift.findings}
    if any(states.get(column, "met") != "met" for column in known["columns"]):
        return None
    del memory.told[drift.model]
    title = f"{drift.model}: drift is over, {', '.join(known['columns'][:5])}"
    return Alert(drift.model, "resolved", title, (), _details(drift, "resolved"))


def _details(drift: Drift, state: str) -> dict[str, Any]:
    columns = [
        {"column": one.column, "effect": one.effect, "low": one.low, "high": one.high, "what": one.describe()}
        for one in drift.drifted
    ]
    return {"model": drift.model, "state": state, "checked": drift.checked, "rows": drift.rows, "columns": columns}


class Watch(Watching[Drift]):
    """Looks at the drift of models."""

    def to_tell(self, found: Drift, repeat_s: float, now_s: float) -> Alert | None:
        return to_tell(found, self.memory, repeat_s, now_s)

    def notes(self, found: Drift) -> Sequence[str]:
        return [f"left out: {problem}" for problem in found.problems]
