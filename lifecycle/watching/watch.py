"""Look at models again and again, tell people once of what has changed, and once when it is over."""

from __future__ import annotations

import json
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from hone.errors import HoneError
from hone.files import atomic_write

from .alerts import Alert, AlertSettings, send
from .gauges import Gauges

logger = logging.getLogger("hone.drift")

HOUR_S = 3600.0


class Found(Protocol):
    """What a look at a model found."""

    @property
    def model(self) -> str: ...

    @property
    def checked(self) -> str: ...

    def headline(self) -> str: ...


F = TypeVar("F", bound=Found)


@dataclass
class Memory:
    """What people have been told: by model, what and when. It survives a restart where it has a file."""

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


@dataclass
class Watching(ABC, Generic[F]):
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
    look: Callable[[str], F]
    gauges: Gauges[F]
    alerts: AlertSettings | None = None
    memory: Memory = field(default_factory=Memory)
    textfile: Path | None = None
    say: Callable[[str], None] = print

    @abstractmethod
    def to_tell(self, found: F, repeat_s: float, now_s: float) -> Alert | None:
        """Return what people should be told, and remember it; None when it is nothing new."""

    def notes(self, found: F) -> Sequence[str]:
        """Return what else is said of a look."""
        return ()

    def turn(self) -> list[F]:
        """Look at each model once."""
        looks = []
        for model in self.models:
            try:
                found = self.look(model)
            except HoneError as error:
                self.gauges.fail(model)
                self.say(f"{model}: {error}")
                continue
            looks.append(found)
            now = time.time()
            self.gauges.show(found, now)
            self.say(f"{found.checked}  {found.model}: {found.headline()}")
            for note in self.notes(found):
                self.say(f"  {note}")
            self._tell(found, now)
        if self.textfile is not None:
            self.gauges.write(self.textfile)
        return looks

    def _tell(self, found: F, now: float) -> None:
        if self.alerts is None:
            return
        before = json.dumps(self.memory.told)
        alert = self.to_tell(found, self.alerts.repeat_hours * HOUR_S, now)
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
