"""Look at models again and again, tell people once of what has moved, and once when it is over."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.errors import HoneError
from hone.files import atomic_write

from .alerts import Alert, AlertSettings, send
from .findings import Drift
from .gauges import Gauges

logger = logging.getLogger("hone.drift")

HOUR_S = 3600.0


@dataclass
class Memory:
    """What people have been told: by model, the columns and when. It survives a restart where it has a file."""

    file: Path | None = None
    told: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, file: Path | None) -> Memory:
        """Return what a file holds; one that can't be read is as none: at worst people are told twice."""
        try:
            told = json.loads(file.read_text()) if file is not None and file.is_file() else {}
        except (OSError, ValueError) as error:
            logger.warning("%s: can't be read, so alerts may be told again: %s", file, error)
            told = {}
        return cls(file, told if isinstance(told, dict) else {})

    def keep(self) -> None:
        if self.file is None:
            return
        try:
            atomic_write(self.file, json.dumps(self.told, indent=2) + "\n", mode=0o600)
        except OSError as error:
            logger.warning("%s: can't be written, so alerts may be told again: %s", self.file, error.strerror or error)


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
    look: Callable[[str], Drift]
    gauges: Gauges
    alerts: AlertSettings | None = None
    memory: Memory = field(default_factory=Memory)
    textfile: Path | None = None
    say: Callable[[str], None] = print

    def turn(self) -> list[Drift]:
        """Look at each model once."""
        found = []
        for model in self.models:
            try:
                drift = self.look(model)
            except HoneError as error:
                self.gauges.fail(model)
                self.say(f"{model}: {error}")
                continue
            found.append(drift)
            now = time.time()
            self.gauges.show(drift, now)
            self.say(f"{drift.checked}  {drift.model}: {drift.headline()}")
            for problem in drift.problems:
                self.say(f"  left out: {problem}")
            self._tell(drift, now)
        if self.textfile is not None:
            self.gauges.write(self.textfile)
        return found

    def _tell(self, drift: Drift, now: float) -> None:
        if self.alerts is None:
            return
        before = json.dumps(self.memory.told)
        alert = to_tell(drift, self.memory, self.alerts.repeat_hours * HOUR_S, now)
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
