"""What the users of one run of Locust's share: whom they call, what they send, and the senders that do it for them."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .payload import Pool
from .sending.fleet import Child, Fleet
from .sending.plan import Plan
from .statistics import tell
from .target import Target, require_grpc
from .wire import GRPC, Call, wire
from .workload import calls_of


@dataclass
class Crowd:
    """What the users of one run share.

    Attributes:
        target: the model.
        inputs, sizes: of different requests, and how many rows each has.
        folder: of the senders' files.
        spare: senders that wait for a plan.
        calls: requests, by protocol.
        fleets: senders, by protocol.
        users: that run, by protocol.
    """

    target: Target
    inputs: list[Pool]
    sizes: np.ndarray
    folder: tempfile.TemporaryDirectory[str]
    spare: list[Child]
    calls: dict[str, list[Call]] = field(default_factory=dict)
    fleets: dict[str, Fleet] = field(default_factory=dict)
    users: Counter[str] = field(default_factory=Counter)

    def prepare(self, protocol: str) -> None:
        """Make the requests of a protocol; raises HoneError when they can't be sent."""
        if protocol == GRPC:
            require_grpc(self.target)
        if protocol not in self.calls:
            self.calls[protocol] = calls_of(self.target, self.inputs, self.sizes, wire(protocol))

    def change(self, protocol: str, by: int) -> None:
        """Let a user of a protocol in, or out."""
        self.users[protocol] += by
        if by > 0 and self.users[protocol] == by:
            self._begin(protocol)  # others come in meanwhile
        if protocol in self.fleets:
            self.fleets[protocol].set_users(self.users[protocol])

    def _begin(self, protocol: str) -> None:
        """Start the sender of a protocol's users, in a process that waits for a plan where there is one."""
        if protocol in self.fleets:
            return
        self.prepare(protocol)
        calls = self.calls[protocol]
        place = Path(self.folder.name) / protocol
        Plan.of(self.target, calls, protocol, order=np.arange(len(calls), dtype=np.uint32)).write(place)
        self.fleets[protocol] = Fleet([place], self.spare)

    def tell(self, stats: Any) -> None:
        """Tell Locust what the senders noted since the last time."""
        for protocol, fleet in list(self.fleets.items()):
            tell(stats, self.calls[protocol][0].path, fleet.more(), fleet.errors(), fleet.zero)

    def failure(self) -> str:
        return next(filter(None, (fleet.failure() for fleet in self.fleets.values())), "")

    def end(self, stats: Any) -> None:
        """End the senders, and tell what they noted last."""
        for fleet in self.fleets.values():
            fleet.end()
        self.tell(stats)
        self.folder.cleanup()
