"""The load of `hone bench`: one scenario from start to end.

`HONE_LOAD` names a JSON file that `benchmarks.load.run` writes: `{"folders": [the senders' plans], "name": the path}`.
One user drives the senders (`sending/sender.py`) and tells Locust what they noted; the records stay in the folders.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import gevent
from locust import User, events, task
from locust.exception import StopUser

from hone.errors import HoneError

from .sending.fleet import Child, Fleet
from .statistics import tell

FOLLOW_S = 0.25

_load: dict[str, Any] = json.loads(Path(os.environ["HONE_LOAD"]).read_text())
_folders = [Path(folder) for folder in _load["folders"]]
_children = [Child() for _ in _folders]
_fleets: list[Fleet] = []
_problems: list[str] = []
_parent = os.getppid()


class Caller(User):
    """Drives the senders."""

    fixed_count = 1

    @task
    def run_scenario(self) -> None:
        try:
            _fleets.append(Fleet(_folders, _children))
            # Who started this may be gone: nobody would read what comes.
            while _fleets[0].running and os.getppid() == _parent:
                gevent.sleep(FOLLOW_S)
                _tell(self.environment)
        except HoneError as error:
            _problems.append(str(error))
        assert self.environment.runner is not None
        gevent.spawn(self.environment.runner.quit)
        raise StopUser


def _tell(environment: Any) -> None:
    fleet = _fleets[0]
    tell(environment.stats, _load["name"], fleet.more(), fleet.errors(), fleet.zero)


@events.quitting.add_listener
def end_senders(environment: Any, **_: Any) -> None:
    """Leave no sender behind; a failed request must not change Locust's exit status, it is in the records."""
    environment.process_exit_code = 0
    for child in _children:
        child.end(0.0)
    for fleet in _fleets:
        fleet.end()
        _tell(environment)
        _problems.extend(filter(None, [fleet.failure()]))
    if _problems:
        environment.process_exit_code = 1
        sys.stderr.write(f"error: {_problems[0]}\n")
