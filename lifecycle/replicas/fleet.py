"""Changing what runs: first replicas, other versions, shares of the requests; what `hone up` and rollouts do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hone import store
from hone.certificates import check_in_time, check_pair
from hone.errors import HoneError
from hone.services.access.exposure import check_exposure
from hone.services.http.ports import require_free_port
from hone.services.launch import free_port
from hone.services.settings import Settings

from .state import MOST, Replica, ReplicasError, Seen, Wanted, is_kept, seen_of, want, wanted_of

POLL_S = 0.2
READY_S = 300.0
"""That new replicas may take until they are ready, and nginx until it deals as it is told."""
FALSE_STARTS = 2
"""After so many in a row a new version doesn't start."""

Heed = Callable[[], object]
"""Called while something is waited for; raises to end that."""


class UnfitError(HoneError):
    """A version whose replicas don't turn ready."""


class DownError(HoneError):
    """Nothing keeps the replicas running now."""


@dataclass(frozen=True)
class Place:
    """Where callers find the replicas.

    Attributes:
        host, port, grpc_port: that nginx listens on.
        certificate, key: files that it shows itself with; without a key the certificate's holds that, too.
    """

    host: str = "127.0.0.1"
    port: int = 3000
    grpc_port: int | None = None
    certificate: str | None = None
    key: str | None = None

    @property
    def tls(self) -> tuple[str, str] | None:
        """The two files in full; a link stays one, since a renewed certificate comes by another link."""
        if self.certificate is None:
            return None
        certificate, key = (str(Path(file).absolute()) for file in (self.certificate, self.key or self.certificate))
        return certificate, key

    def check(self, variables: Mapping[str, str]) -> None:
        """Raise HoneError when somebody listens there, others would reach a service without keys, or TLS can't be."""
        check_pair(self.certificate, self.key)
        if self.certificate is not None:
            check_in_time(self.certificate, self.key)
        check_exposure(Settings.from_environment(variables), ["--host", self.host])
        require_free_port(self.host, self.port, "--port")
        if self.grpc_port is not None:
            require_free_port(self.host, self.grpc_port, "--grpc-port")


def first_wanted(reference: str, count: int | None, place: Place, options: tuple[str, ...]) -> tuple[Wanted, str]:
    """Put down what a start is to run, and return it with what it rests on, in words.

    After a kill, and while a rollout isn't over, what ran before runs again.

    Args:
        reference: NAME, NAME:VARIANT, NAME@ALIAS or a full tag.
        count: of replicas; None: as many as before, else two.
        place: to listen on.
        options: of `hone serve`.

    Raises:
        StoreError: no such model.
        ReplicasError: the reference names a version while a rollout isn't over, or there are too many replicas.
    """
    name = reference.partition("@")[0].partition(":")[0]
    before = wanted_of(name)
    fields = {"host": place.host, "port": place.port, "grpc_port": place.grpc_port, "tls": place.tls}
    if before is not None and len(before.versions) > 1 and reference != name:
        raise ReplicasError(f"a rollout of '{name}' isn't over; hone up {name}, then hone rollout status {name}")
    if before is not None and reference == name and all(_is_stored(name, one) for one in before.versions):
        versions = [replica.version for replica in before.replicas]
        if count is not None and len(before.versions) == 1:
            versions = versions[:1] * count
        shares, why = before.shares, "as it was"
    else:
        choice = store.choose(store.serving_set(reference))
        versions, shares, why = [choice.entry.version] * (count or 2), {choice.entry.version: 100.0}, choice.reason
    if len(versions) > MOST:
        raise ReplicasError(f"--replicas: {MOST} at most")
    made = before.made if before else 0
    grpc = place.grpc_port is not None
    replicas = tuple(_new(made + number, version, grpc) for number, version in enumerate(versions, 1))
    made += len(versions)
    return want(Wanted(name=name, replicas=replicas, shares=shares, made=made, options=options, **fields)), why


def _is_stored(name: str, version: str) -> bool:
    try:
        store.resolve(f"{name}:{version}")
    except HoneError:
        return False
    return True


def _new(number: int, version: str, grpc: bool) -> Replica:
    return Replica(id=f"r{number}", version=version, port=free_port(), grpc_port=free_port() if grpc else None)


@dataclass(frozen=True)
class Fleet:
    """A model's replicas, to be changed while they run.

    Args:
        name: of the model.
    """

    name: str

    @property
    def wanted(self) -> Wanted:
        """What is to run; raises ReplicasError where there is nothing."""
        found = wanted_of(self.name)
        if found is None:
            raise ReplicasError(f"'{self.name}' has no replicas here; hone up {self.name} --replicas 2")
        return found

    @property
    def seen(self) -> Seen:
        """What runs; raises DownError where nothing does."""
        found = seen_of(self.name)
        if found is None:
            raise DownError(f"nothing keeps the replicas of '{self.name}' running; hone up {self.name}")
        return found

    def add(self, version: str, count: int) -> None:
        """Have more replicas of a version; they get no requests that the version didn't get before."""
        before = self.wanted
        grpc = before.grpc_port is not None
        more = tuple(_new(before.made + number, version, grpc) for number in range(1, count + 1))
        replicas = (*before.replicas, *more)
        if len(replicas) > MOST:
            raise ReplicasError(f"{len(replicas)} replicas at once; {MOST} at most")
        want(before.model_copy(update={"replicas": replicas, "made": before.made + count}))

    def change(self, shares: Mapping[str, float], without: Iterable[str] = ()) -> None:
        """Deal the requests out anew, and leave replicas out by their ids; both at one moment."""
        before, gone = self.wanted, set(without)
        replicas = tuple(one for one in before.replicas if one.id not in gone)
        held = {version: share for version, share in shares.items() if share > 0}
        want(before.model_copy(update={"shares": held, "replicas": replicas}))

    def wait_ready(self, version: str, count: int, heed: Heed) -> None:
        """Wait until so many replicas of a version are ready: each has compared its golden rows by then.

        Raises:
            UnfitError: one doesn't start, or they take too long.
            DownError: nothing keeps them running.
        """
        deadline = time.monotonic() + READY_S
        while True:
            heed()
            seen = self.seen
            if len(seen.ready(version)) >= count:
                return
            self.check_starts(seen, version)
            if time.monotonic() > deadline:
                raise UnfitError(f"{self.name}:{version} isn't ready after {READY_S:g} s")
            time.sleep(POLL_S)

    def check_starts(self, seen: Seen, version: str) -> None:
        """Raise UnfitError when a replica of a version fails again and again."""
        ids = {replica.id for replica in self.wanted.of(version)}
        for life in seen.lives:
            if life.id in ids and life.state != "ready" and life.failures >= FALSE_STARTS:
                raise UnfitError(f"{self.name}:{version} doesn't turn ready: {life.why}")

    def wait_dealt(self, heed: Heed) -> None:
        """Wait until nginx deals the requests out as it is wanted; raises DownError, or ReplicasError after a while."""
        deadline = time.monotonic() + READY_S
        while not self.is_dealt():
            heed()
            if time.monotonic() > deadline:
                raise ReplicasError(f"nginx doesn't deal the requests as it is told: {self.seen.why or 'it is busy'}")
            time.sleep(POLL_S)

    def is_dealt(self) -> bool:
        """Return whether what nginx does is what is wanted; raises DownError."""
        in_force, shares = self.seen.in_force, self.wanted.shares
        return in_force.keys() == shares.keys() and all(abs(in_force[one] - shares[one]) < 0.01 for one in shares)

    @property
    def is_up(self) -> bool:
        return is_kept(self.name)
