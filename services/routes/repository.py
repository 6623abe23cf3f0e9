"""The models that a server can load, and loading and unloading them in all its workers: Triton's model repository.

Who may do what is in services/access/callers.py; every action is written to the audit log before it is done. HTTP and
gRPC both lead here.
"""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Any

from hone import store
from hone.audit import REQUESTED
from hone.errors import ArtifactError, HoneError, StoreError

from ..access.exposure import is_loopback
from ..arms.split import parse_split
from ..http.failures import AdminOffError, NotFoundError, RequestError, UnrecordedError, UnusableModelError
from ..http.responses import Head
from ..models.desired import DesiredState
from ..models.followed import Followed
from .edge import Edge
from .hub import Hub

logger = logging.getLogger("hone.serving")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What can be part of a stored model's tag; whatever else a caller names isn't stored, and the store isn't asked."""

MOST_NOTED = 300
"""Characters of what a caller asked for, in the audit log."""


class Repository:
    """What can be loaded, what is loaded, and what changes it.

    Args:
        hub: of the worker.
        edge: of the worker.
        desired: shared by the server's workers.
        followed: aliases that the service was given.
    """

    def __init__(self, hub: Hub, edge: Edge, desired: DesiredState, followed: Followed | None = None) -> None:
        self._hub = hub
        self._edge = edge
        self._desired = desired
        self._followed = followed or Followed()
        self._applied: dict[str, int] = {}

    async def admit(self, head: Head, model: str | None) -> str:
        """Return who asks for an admin action on a model; None: on one that isn't known yet.

        Raises:
            RequestError: they may not.
        """
        caller = await self._edge.admit(head, "operate", model)
        if caller is not None:
            return caller.id
        if self._edge.settings.insecure:
            raise AdminOffError("admin actions are off without keys; set HONE_API_KEYS (hone keys new)")
        # A page that the operator happens to look at must not act on a service of his machine: neither from its own
        # origin, nor under a name of its own that it lets point to this machine.
        host, origin = head.get(b"host", b"").decode("latin-1"), head.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2] != host:
            raise AdminOffError("admin actions from another site's pages are refused")
        if host and not is_loopback(re.sub(r":\d+$", "", host)):
            raise AdminOffError(f"admin actions under the name '{host}' need keys; use localhost, or set HONE_API_KEYS")
        return "local"

    @property
    def desired(self) -> DesiredState:
        """What all workers should hold."""
        return self._desired

    @property
    def followed(self) -> Followed:
        """Aliases that the service was given."""
        return self._followed

    def index(self, only_ready: bool) -> list[dict[str, str]]:
        """Return every model that can be loaded, and whether it is loaded."""
        loaded = {served.tag for served in self._hub.models()}
        listed = [
            {"name": entry.name, "version": entry.version, "state": "READY" if entry.tag in loaded else "UNAVAILABLE",
             "reason": "" if entry.tag in loaded else "unloaded"}
            for entry in self._hub.loadable()
        ]  # fmt: skip
        return [entry for entry in listed if entry["state"] == "READY" or not only_ready]

    async def load(self, actor: str, name: str, parameters: Any) -> dict[str, str]:
        """Load a stored model in every worker; it takes the place of the version that served.

        Args:
            actor: for the audit log.
            name: of the model.
            parameters: `version`, a version or variant of it (default: the best for this host); `keep`, true keeps the
                versions that are loaded beside it. As the caller gave them.

        Raises:
            RequestError: no such model, one that can't be served, or wrong parameters.
        """
        version, keep = _version(parameters), parameters.get("keep", False)
        if not isinstance(keep, bool):
            raise RequestError('the parameter "keep" must be true or false')
        reference = f"{name}:{version}" if version else name
        await self.announce(actor, "load", reference)
        try:
            _check_names(name, version)
            served = await self._hub.load(reference, keep=keep)
        except (HoneError, NotFoundError) as error:
            await self.conclude(actor, "load", reference, "failed", reason=str(error))
            message = without_folder(str(error))
            if isinstance(error, (StoreError, NotFoundError)):
                raise NotFoundError(message) from error
            if isinstance(error, ArtifactError):
                raise UnusableModelError(message) from error
            raise
        await self.conclude(actor, "load", served.tag, "done")
        await self.spread(served.tag)
        return {"name": name, "version": served.entry.version}

    async def unload(self, actor: str, name: str, parameters: Any) -> dict[str, str]:
        """Unload a model, or the version of it that `parameters` names, in every worker.

        Raises:
            RequestError: it isn't loaded, or wrong parameters.
        """
        version = _version(parameters)
        subject = f"{name}:{version}" if version else name
        held = self._hub.splits.versions(name)
        if held and (not version or self._hub.get(name, version).entry.version in held):
            raise RequestError(f"{subject} is an arm of a split; clear that first: hone split clear {name}")
        await self.announce(actor, "unload", subject)
        try:
            await self._hub.unload(name, version)
        except NotFoundError as error:
            await self.conclude(actor, "unload", subject, "failed", reason=str(error))
            raise
        await self.conclude(actor, "unload", subject, "done")
        await self.spread()
        return {"name": name}

    async def announce(self, actor: str, action: str, subject: str) -> None:
        """Record that an action is asked for.

        Raises:
            UnrecordedError: the audit log can't be written, so it must not be done.
        """
        if self._edge.audit is None:
            return
        try:
            await asyncio.to_thread(self._edge.audit.append, actor, action, subject[:MOST_NOTED], REQUESTED)
        except HoneError as error:
            logger.error("%s refused: %s", action, error)
            raise UnrecordedError(f"{action} was not done: it can't be recorded; the server's log says why") from None

    async def conclude(self, actor: str, action: str, subject: str, outcome: str, **details: str) -> None:
        """Record what became of an action that was announced."""
        subject, details = subject[:MOST_NOTED], {name: text[:MOST_NOTED] for name, text in details.items()}
        logger.info("%s %s by %s: %s", action, subject, actor, outcome)
        if self._edge.audit is None:
            return
        try:
            await asyncio.to_thread(self._edge.audit.append, actor, action, subject, outcome, **details)
        except HoneError as error:
            logger.error("%s %s is %s, but that is not recorded: %s", action, subject, outcome, error)

    async def spread(self, loaded: str = "") -> None:
        """Let all workers hold what this one does, and wait until they do.

        Args:
            loaded: tag of what was just loaded.

        Raises:
            UnusableModelError: one of them can't.
        """
        answers = [self._hub.get(name).tag for name in self._hub.names()]
        present, splits = [served.tag for served in self._hub.models()], self._hub.splits.plain()
        desired = self._desired.write(present, loaded, answers=answers, splits=splits)
        self._applied = dict(desired.loads)
        self._desired.report(desired.generation)
        problems = await self._desired.wait_for_others(desired.generation)
        if problems:
            raise UnusableModelError("not every worker could follow: " + without_folder("; ".join(problems)))

    async def follow(self) -> None:
        """Bring this worker to the list that an action in another worker wrote."""
        desired = self._desired.read()
        problems: list[str] = []
        wanted = dict(desired.loads)
        if desired.generation:
            for tag, load in desired.loads:
                if self._applied.get(tag, 0) < load or tag not in {served.tag for served in self._hub.models()}:
                    try:
                        await self._hub.load(
                            tag, keep=True, beside=bool(desired.answers) and tag not in desired.answers
                        )
                    except HoneError as error:
                        problems.append(str(error))
            # All at once, between two requests.
            for tag in desired.answers:
                name, _, version = tag.partition(":")
                if version in self._hub.versions(name):
                    self._hub.prefer(name, version)
            self._hub.share_out(map(parse_split, desired.splits))
            for served in self._hub.models():
                if served.tag not in wanted:
                    await self._hub.unload(served.entry.name, served.entry.version)
        self._applied = wanted
        self._desired.report(desired.generation, "; ".join(problems))

    async def catch_up(self) -> None:
        """Follow the list where it has changed since it was read, and the aliases where the registry has."""
        await self._follow_list()
        for name in self._followed.moved():
            with self._desired.leading() as leads:
                if leads:
                    await self._follow_aliases(name)
                else:  # another worker sees to it, and this one to its list
                    self._followed.look_again(name)

    async def _follow_list(self) -> None:
        if self._desired.changed() and self._desired.read().generation:
            await self.follow()

    async def _follow_aliases(self, name: str) -> None:
        """Serve what a model's aliases mean now, in every worker.

        What can't be loaded, or recorded, is told in the log; what served before still does.
        """
        await self._follow_list()
        meant = await asyncio.to_thread(self._followed.meant, name)
        there = {served.tag for served in self._hub.models() if served.entry.name == name}
        retired = self._followed.retired(name, meant, there)
        try:
            last = ""
            for reference, tag in meant.items():
                # The alias that was given first comes last: it answers the paths without a version.
                if tag not in there or (reference == list(meant)[-1] and self._hub.get(name).tag != tag):
                    await self._take_over(reference, tag, keep=bool(there - retired))
                    there, last = there | {tag}, tag
            # An arm of a split stays until that is over.
            arms = {f"{name}:{version}" for version in self._hub.splits.versions(name)}
            left = (retired - arms) & {served.tag for served in self._hub.models()}
            for tag in left:
                await self._hub.unload(name, tag.partition(":")[2])
            self._followed.settle(meant)
            if last or left:
                await self.spread(last)
        except (HoneError, RequestError) as error:
            logger.error("what '%s' means in the registry is not served: %s", name, error)

    async def _take_over(self, reference: str, tag: str, *, keep: bool) -> None:
        actor = f"registry:{reference}"
        await self.announce(actor, "load", tag)
        try:
            await self._hub.load(tag, keep=keep)
        except (HoneError, RequestError) as error:
            await self.conclude(actor, "load", tag, "failed", reason=str(error))
            raise
        await self.conclude(actor, "load", tag, "done")


def _version(parameters: Any) -> str:
    """Return the version that the parameters name, or an empty string.

    Raises:
        RequestError: they are no object, or the version is no text: it must not count as none, which means all.
    """
    if not isinstance(parameters, dict):
        raise RequestError('"parameters" must be an object')
    version = parameters.get("version", "")
    if not isinstance(version, str):
        raise RequestError('the parameter "version" must be a string')
    return version


def _check_names(name: str, version: str) -> None:
    """Raise NotFoundError when a stored model can't be called so."""
    for kind, text in (("model", name), ("version", version or "latest")):
        if not _NAME.fullmatch(text):
            raise NotFoundError(f"no {kind} '{text[:100]}' is stored; its name can't hold that, or is too long")


def without_folder(message: str) -> str:
    """Return a message without the store's place on this host, which is no caller's business."""
    folder = store.models_dir()
    for path in sorted({str(folder), str(folder.resolve())}, key=len, reverse=True):
        message = message.replace(f"{path}/", "").replace(path, "the store")
    return message
