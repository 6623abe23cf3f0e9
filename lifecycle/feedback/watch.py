"""Look at models' quality again and again, tell people once of what has changed, and once when it is over."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hone.errors import HoneError

from ..drift.alerts import Alert, AlertSettings, send
from ..drift.watch import HOUR_S, Memory
from .findings import Quality
from .gauges import Gauges


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
        lines += [found.expected.describe()] if found.expected else []
        lines.append(f"hone feedback report {found.model} draws it.")
        title = f"{found.model}: quality, {found.headline()}"
        return Alert(found.model, "quality", title, tuple(lines), details)
    if known is None or state != "holds":
        return None
    del memory.told[found.model]
    return Alert(found.model, "resolved", f"{found.model}: quality holds again", (found.headline(),), details)


@dataclass
class Watch:
    """Looks at models, one after the other.

    Attributes:
        models: as they are written; an alias means what it means at each look.
        look: at one of them.
        gauges: show what was found.
        alerts: whom to tell; None: nobody.
        memory: of what was told.
        textfile: that the gauges are written to.
        say: gets a line for each look.
    """

    models: Sequence[str]
    look: Callable[[str], Quality]
    gauges: Gauges
    alerts: AlertSettings | None = None
    memory: Memory = field(default_factory=Memory)
    textfile: Path | None = None
    say: Callable[[str], None] = print

    def turn(self) -> list[Quality]:
        """Look at each model once."""
        found = []
        for model in self.models:
            try:
                quality = self.look(model)
            except HoneError as error:
                self.gauges.fail(model)
                self.say(f"{model}: {error}")
                continue
            found.append(quality)
            self.gauges.show(quality, time.time())
            self.say(f"{quality.checked}  {quality.model}: {quality.headline()}")
            self._tell(quality)
        if self.textfile is not None:
            self.gauges.write(self.textfile)
        return found

    def _tell(self, quality: Quality) -> None:
        if self.alerts is None:
            return
        before = json.dumps(self.memory.told)
        alert = to_tell(quality, self.memory, self.alerts.repeat_hours * HOUR_S, time.time())
        if alert is None:
            return
        problems = send(self.alerts, alert)
        for problem in problems:
            self.say(f"  not told: {problem}")
        if problems and len(problems) == len(self.alerts.webhooks) + (self.alerts.mail is not None):
            self.memory.told = json.loads(before)  # nobody was reached: the next look tells it
            return
        self.memory.keep()

    def run(self, every_s: float, stop: threading.Event) -> None:
        """Look until it is stopped."""
        while True:
            self.turn()
            if stop.wait(every_s):
                return
