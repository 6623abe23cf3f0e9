"""Tell people once of quality that is lost, and once when it is back."""

from __future__ import annotations

from ..watching.alerts import Alert
from ..watching.watch import Memory, Watching
from .findings import Quality


def to_tell(found: Quality, memory: Memory, repeat_s: float, now_s: float) -> Alert | None:
    """Return what people should be told after a look; None when it is nothing new.

    Told are losses when they begin and when they get worse, again after `repeat_s`, and their end: when quality holds.
    """
    known, state = memory.told.get(found.model), found.state
    details = {"model": found.model, "state": state, "checked": found.checked, "labeled": found.labeled}
    if state in ("warn", "act"):
        worse = known is None or (known["state"], state) == ("warn", "act")
        if not worse and known is not None and now_s - known["at"] < repeat_s:
            return None
        memory.told[found.model] = {"state": state, "at": now_s}
        lines = [one.describe() for one in found.measured]
        lines += [one.describe() for one in found.estimates]
        lines.append(f"hone feedback report {found.model} draws it.")
        title = f"{found.model}: quality, {found.headline()}"
        return Alert(found.model, "quality", title, tuple(lines), details)
    if known is None or state != "holds":
        return None
    del memory.told[found.model]
    return Alert(found.model, "resolved", f"{found.model}: quality holds again", (found.headline(),), details)


class Watch(Watching[Quality]):
    """Looks at the quality of models."""

    def to_tell(self, found: Quality, repeat_s: float, now_s: float) -> Alert | None:
        return to_tell(found, self.memory, repeat_s, now_s)
