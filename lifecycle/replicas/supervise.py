"""Keeping replicas running as they are wanted: `hone up`.

One loop: what is wanted runs, what runs and is ready gets its share of the requests, what isn't wanted any more ends
once nginx sends it none. Nothing here decides what is wanted: `wanted.json` does.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from hone.errors import HoneError

from .balancer import Balancer, Groups, configuration
from .life import Living, Patience
from .state import Replica, ReplicasError, Seen, Wanted, folder_of, show, wanted_of

TURN_S = 0.2
STOP_S = 60.0


@dataclass
class Supervisor:
    """Keeps the replicas of one model running.

    Args:
        name: of the model.
        say: told what happens, in lines.
        patience: with replicas.
        pid: of this process, for `seen.json`.
    """

    name: str
    say: Callable[[str], object]
    patience: Patience = Patience()  # noqa: RUF009 - frozen
    pid: int = 0
    _lives: dict[str, Living] = field(default_factory=dict)
    _seen: Seen | None = None
    _in_force: dict[str, tuple[float, tuple[str, ...]]] = field(default_factory=dict)
    _applying: Future[None] | None = None
    _shown: tuple[int, ...] = ()
    _why: str = ""
    _not_before: float = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Keep them running until `stopping` is set, then end them.

        Raises:
            ReplicasError: all replicas are given up, or nothing is wanted.
        """
        self._turned = threading.Event()
        self._balancer = Balancer(folder_of(self.name))
        with ThreadPoolExecutor(1, thread_name_prefix="nginx") as self._pool:
            try:
                while not stopping.is_set():
                    self._turn()
                    self._turned.wait(TURN_S)
                    self._turned.clear()
            finally:
                self._end()

    def _turn(self) -> None:
        wanted = wanted_of(self.name)
        if wanted is None:
            raise ReplicasError(f"{folder_of(self.name) / 'wanted.json'} is gone; hone up {self.name} again")
        for replica in wanted.replicas:
            if replica.id not in self._lives:
                self._begin(replica, wanted)
        groups = self._groups(wanted)
        self._balance(wanted, groups)
        self._part(wanted)
        self._show(wanted)
        if not groups and all(life.now.state == "given up" for life in self._lives.values()):
            why = next(iter(self._lives.values())).now.why
            raise ReplicasError(f"no replica of '{self.name}' starts: {why}; logs are in {logs_of(self.name)}")

    def _begin(self, replica: Replica, wanted: Wanted) -> None:
        log = logs_of(self.name) / f"{replica.id}.log"
        living = Living(replica, serve_command(replica, wanted), log, self.patience, self._turned.set)
        self._lives[replica.id] = living
        living.begin()

    def _groups(self, wanted: Wanted) -> dict[str, tuple[float, tuple[Replica, ...]]]:
        """Return who gets which share: of versions that have a ready replica, the first first."""
        found = {}
        for version in sorted(wanted.shares, key=lambda one: (-wanted.shares[one], one)):
            ready = tuple(one for one in wanted.of(version) if self._lives[one.id].now.state == "ready")
            if ready:
                found[version] = (wanted.shares[version], ready)
        whole = sum(share for share, _ in found.values())
        return {version: (100 * share / whole, ready) for version, (share, ready) in found.items()}

    def _balance(self, wanted: Wanted, groups: Groups) -> None:
        """Have nginx deal the requests out among those who are ready; while there is none, leave it as it is."""
        if self._applying is not None:
            if not self._applying.done():
                return
            self._settle()
        if self._in_force and not self._balancer.pid:
            self._why = self._why or "it ended"
            self._in_force = {}
            self._not_before = time.monotonic() + self.patience.first_s
            self.say(f"nginx: {self._why}; it is started again")
        held = {version: (share, tuple(one.id for one in ready)) for version, (share, ready) in groups.items()}
        shown = stamp_of(wanted.tls) or self._shown
        if not groups or (held, shown) == (self._in_force, self._shown) or time.monotonic() < self._not_before:
            return
        folder = folder_of(self.name)
        text = configuration(folder, wanted.host, wanted.port, wanted.grpc_port, groups, wanted.tls)
        self._pending, self._pending_shown = held, shown
        self._applying = self._pool.submit(self._balancer.apply, text)
        self._applying.add_done_callback(lambda _: self._turned.set())

    def _settle(self) -> None:
        """Take note of what became of the last change."""
        applying, self._applying = self._applying, None
        try:
            if applying is not None:
                applying.result()
        except (HoneError, OSError) as error:
            if not self._in_force:
                raise
            self._why, self._not_before = str(error), time.monotonic() + self.patience.most_s
            self.say(f"nginx: {error}")
            return
        first = not self._in_force
        renewed = not first and self._shown != self._pending_shown
        self._in_force, self._shown, self._why = self._pending, self._pending_shown, ""
        if renewed:
            self.say("nginx shows the certificate that was renewed")
        dealt = ", ".join(
            f"{share:.4g} % {self.name}:{version} ({', '.join(ids)})"
            for version, (share, ids) in self._in_force.items()
        )
        self.say(f"{'ready: ' if first else ''}{dealt}")

    def _part(self, wanted: Wanted) -> None:
        """End what isn't wanted any more and gets no request, and forget what has ended."""
        kept = {replica.id for replica in wanted.replicas}
        asked = {one for _, ids in self._in_force.values() for one in ids}
        pending = {one for _, ids in self._pending.values() for one in ids} if self._applying else set()
        for place, living in list(self._lives.items()):
            if place not in kept | asked | pending:
                living.stop()
                if living.ended:
                    del self._lives[place]

    def _show(self, wanted: Wanted) -> None:
        in_force = {version: share for version, (share, _) in self._in_force.items()}
        seen = Seen(
            pid=self.pid,
            url=url_of(wanted),
            lives=tuple(living.now for living in self._lives.values()),
            in_force=in_force,
            balancer=self._balancer.pid,
            why=self._why,
        )
        if seen != self._seen:
            self._tell(self._seen, seen)
            show(self.name, seen)
            self._seen = seen

    def _tell(self, before: Seen | None, now: Seen) -> None:
        """Say what went wrong with replicas since the last look."""
        known = {life.id: life for life in before.lives} if before else {}
        for life in now.lives:
            then = known.get(life.id)
            if life.state in ("waiting", "given up") and (then is None or then.failures != life.failures):
                what = "is given up" if life.state == "given up" else "is started again"
                self.say(f"{life.id} ({self.name}:{life.version}) {what}: {life.why}")

    def _end(self) -> None:
        """End everything: nginx first, so that no request comes any more."""
        self._balancer.stop()
        for living in self._lives.values():
            living.stop()
        deadline = time.monotonic() + STOP_S
        for living in self._lives.values():
            living.join(max(0.1, deadline - time.monotonic()))

    _pending: dict[str, tuple[float, tuple[str, ...]]] = field(default_factory=dict)
    _pending_shown: tuple[int, ...] = ()
    _turned: threading.Event = field(default_factory=threading.Event)


def serve_command(replica: Replica, wanted: Wanted) -> list[str]:
    """Return the command that serves a replica."""
    address = ["--host", "127.0.0.1", "--port", str(replica.port)]
    address += ["--grpc-port", str(replica.grpc_port)] if replica.grpc_port else []
    code = "from hone.cli.main import main; main()"
    return [sys.executable, "-c", code, "serve", f"{wanted.name}:{replica.version}", *address, *wanted.options]


def logs_of(name: str) -> Path:
    return folder_of(name) / "logs"


def stamp_of(tls: tuple[str, str] | None) -> tuple[int, ...]:
    """Return what tells that the files of TLS were renewed; nothing while one is missing, as in between."""
    try:
        return tuple(Path(file).stat().st_mtime_ns for file in tls or ())
    except OSError:
        return ()


def url_of(wanted: Wanted) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(wanted.host, wanted.host)  # to ask it  # nosec B104
    scheme = "https" if wanted.tls else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host and '[' not in host else host}:{wanted.port}"
