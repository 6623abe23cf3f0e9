"""Setting and ending a split, in all workers at one moment, and what its arms have done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from typing import Any

from hone import store
from hone.errors import ArtifactError, HoneError, StoreError
from hone.store.registry import ALIASES

from ...arms import kept
from ...arms.active import ActiveSplit
from ...arms.evidence import Limits
from ...arms.split import WHOLE, Split, parse_split
from ...http.failures import NotFoundError, OverloadedError, RequestError, UnusableModelError
from ..hub import Hub
from ..repository import Repository, without_folder
from ..served import ServedModel

logger = logging.getLogger("hone.serving")

TURN_S = 10.0
"""That a change waits for another one to end."""
LOOK_S = 0.1


class SplitOperations:
    """What callers with the scope `operate` do to splits, and what others read of them.

    Args:
        hub: of the worker.
        repository: of the worker; splits are a part of what all workers should hold.
    """

    def __init__(self, hub: Hub, repository: Repository) -> None:
        self._hub = hub
        self._repository = repository

    def show(self, name: str) -> dict[str, Any]:
        """Return the split of a model, null for none, and what its arms have done.

        Raises:
            NotFoundError: it isn't loaded.
        """
        self._hub.get(name)
        active = self._hub.splits.active.get(name)
        if active is None:
            return {"model": name, "split": None}
        self._hub.flush()
        return {"model": name, "split": active.split.model_dump(), **active.evidence.seen()}

    def verdict(self, name: str, arm: str, limits: Limits) -> dict[str, Any]:
        """Return the verdict on an arm beside the stable one, and the evidence; a thread may ask.

        Raises:
            NotFoundError: the model isn't loaded; RequestError: no such arm.
        """
        self._hub.get(name)
        active = self._hub.splits.active.get(name)
        if active is None or len(active.split.arms) < 2:
            why = "nothing is split: there is nothing to compare"
            return {"model": name, "verdict": "undecided", "missing": None, "reason": why, "checks": []}
        split = active.split
        chosen = split.arm(arm) if arm else split.arms[-1]
        if chosen.name == split.stable.name:
            raise RequestError(f"'{arm}' is the stable arm; the others are compared with it")
        found, rests_on = active.evidence.verdict(chosen.name, limits)
        checks = [asdict(check) | {"told": check.told()} for check in found.checks]
        about = {"arm": chosen.name, "version": chosen.version, "weight": chosen.weight}
        return {
            "model": name, "verdict": found.verdict, **about, "missing": found.missing, "reason": found.reason,
            "checks": checks, **rests_on,
        }  # fmt: skip

    async def set(self, actor: str, name: str, parameters: Any) -> dict[str, Any]:
        """Split the requests for a model, or weigh the arms of its split anew.

        The arms are loaded, and their golden rows checked, in every worker before one of them gets a request.

        Args:
            actor: for the audit log.
            name: of the model.
            parameters: `arms`, a list of `version` (also an alias), `weight` in percent and `name` (that of the version
                by default), the stable one first; `sticky`, `salt`, `fallback` and `compare`, as `Split` has them.

        Raises:
            RequestError: one can't be served, or the parameters are wrong.
        """
        self._hub.get(name)
        wanted = self._wanted(name, parameters)
        subject = f"{name} {', '.join(f'{arm.name} {arm.weight:g}' for arm in wanted.arms)}"
        async with self._turn():
            await self._repository.announce(actor, "split", subject)
            try:
                is_kept = await self._put_in_force(wanted)
            except (HoneError, RequestError) as error:
                await self._repository.conclude(actor, "split", subject, "failed", reason=str(error))
                if isinstance(error, RequestError):
                    raise
                raise _for_caller(error) from error
            await self._repository.conclude(actor, "split", subject, "done")
        return {**self.show(name), "kept": is_kept}

    async def clear(self, actor: str, name: str, parameters: Any) -> dict[str, Any]:
        """End a split; what it loaded leaves, and so does what no alias of the service means any more.

        Args:
            actor: for the audit log.
            name: of the model.
            parameters: `answer`, the arm that answers all requests from now on (default: what answered before).

        Raises:
            RequestError: no such model or arm.
        """
        self._hub.get(name)
        async with self._turn():
            active = self._hub.splits.active.get(name)
            if active is None:
                return {"model": name, "split": None}
            arm = _text(parameters, "answer")
            chosen = active.split.arm(arm).version if arm else self._hub.get(name).entry.version
            await self._repository.announce(actor, "split", f"{name} none")
            gone = self._leaving(active.split, chosen)
            self._hub.prefer(name, chosen)
            self._hub.share_out(self._others(name))
            kept.forget(name)
            for version in gone:
                await self._hub.unload(name, version)
            await self._repository.conclude(actor, "split", f"{name} none", "done")
            await self._repository.spread()
        return {"model": name, "split": None, "answers": chosen}

    async def restore(self) -> None:
        """Take up what was in force when the server ended; what can't be is told in the log, and is not split."""
        if self._repository.desired.read().generation:
            return  # another worker has changed something since, and this one has followed
        found = [split for name in self._hub.names() if (split := kept.kept(name)) is not None]
        taken = []
        for split in found:
            try:
                await self._load(split)
                taken.append(split)
            except (HoneError, RequestError) as error:
                logger.error("the split of '%s' is not taken up: %s", split.model, error)
        if taken:
            self._hub.share_out(taken)

    def _wanted(self, name: str, parameters: Any) -> Split:
        content = dict(parameters) if isinstance(parameters, dict) else {}
        arms = content.get("arms")
        if not isinstance(arms, list) or not all(isinstance(arm, dict) for arm in arms):
            raise RequestError('"arms" must be a list of objects with version and weight')
        if unknown := content.keys() - {"arms", "sticky", "salt", "fallback", "compare"}:
            raise RequestError(f"no such parameter: {', '.join(sorted(unknown))[:100]}")
        meant = [
            {**arm, "name": arm.get("name", arm.get("version")), "version": self._meant(name, arm)} for arm in arms
        ]
        return parse_split({**content, "model": name, "arms": meant})

    def _meant(self, name: str, arm: dict[str, Any]) -> str:
        """Return the version that an arm names, by alias or as the store does."""
        version = _text(arm, "version")
        if not version:
            raise RequestError('each arm needs a "version": one that is stored, or an alias')
        try:
            if version in self._hub.versions(name):
                return version
            if version in ALIASES:
                return self._hub.candidates(store.resolve(f"{name}@{version}").tag)[0].version
            return self._hub.candidates(f"{name}:{version}")[0].version
        except HoneError as error:
            raise _for_caller(error) from error

    async def _put_in_force(self, wanted: Split) -> bool:
        """Put a split in force; return whether it is kept for the next start."""
        active = self._hub.splits.active.get(wanted.model)
        again = active.split.weighed_anew(wanted) if active is not None else None
        if active is None or again is None:
            active, again = await self._begin(wanted, active)
        active.table.write(again.weights)
        await asyncio.to_thread(active.evidence.begin, again.weights)
        return await asyncio.to_thread(kept.keep, again)

    async def _begin(self, wanted: Split, before: ActiveSplit | None) -> tuple[ActiveSplit, Split]:
        """Let every worker deal requests out by a split of which only the stable arm has any weight yet."""
        name, old = wanted.model, before.split if before is not None else None
        brought = await self._load(wanted)
        split = wanted.model_copy(update={"brought": (*(old.brought if old else ()), *brought)})
        quiet = [arm.model_copy(update={"weight": 0.0 if place else WHOLE}) for place, arm in enumerate(split.arms)]
        try:
            self._hub.share_out([*self._others(name), split.model_copy(update={"arms": tuple(quiet)})])
            await self._repository.spread()
        except RequestError:
            self._hub.share_out([*self._others(name), *([old] if old else [])])
            await self._unload(name, brought)
            with suppress(RequestError):
                await self._repository.spread()
            raise
        await self._unload(name, [v for v in split.brought if v not in split.versions])
        return self._hub.splits.active[name], split

    async def _load(self, split: Split) -> list[str]:
        """Load the arms that aren't; return their versions.

        Raises:
            HoneError: one isn't stored, is corrupt, can't run here, or answers otherwise than in its proof.
            UnusableModelError: one takes or gives something else than the stable arm.
        """
        name, brought = split.model, []
        try:
            for arm in split.arms:
                if arm.version not in self._hub.versions(name):
                    served = await self._hub.load(f"{name}:{arm.version}", beside=True)
                    brought.append(served.entry.version)
                    if served.entry.version != arm.version:
                        raise UnusableModelError(f"{name}:{arm.version} can't be served; the service's log says why")
            _check_callers([self._hub.get(name, arm.version) for arm in split.arms])
        except BaseException:
            await self._unload(name, brought)
            raise
        return brought

    async def _unload(self, name: str, versions: list[str]) -> None:
        for version in versions:
            if version in self._hub.versions(name):
                await self._hub.unload(name, version)

    def _leaving(self, split: Split, chosen: str) -> list[str]:
        """Return the loaded versions that leave with a split."""
        meant = {tag.partition(":")[2] for tag in self._repository.followed.meant(split.model).values()}
        gone = set(split.brought) | ({self._hub.get(split.model).entry.version} & split.versions)
        gone |= split.versions if meant else set()
        return [version for version in self._hub.versions(split.model) if version in gone - meant - {chosen}]

    def _others(self, name: str) -> list[Split]:
        return [active.split for model, active in self._hub.splits.active.items() if model != name]

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Let one worker change splits at a time, and none while models follow an alias."""
        for _ in range(round(TURN_S / LOOK_S)):
            with self._repository.desired.leading() as leads:
                if leads:
                    yield
                    return
            await asyncio.sleep(LOOK_S)
        raise OverloadedError("another change of the models is under way")


def _check_callers(arms: list[ServedModel]) -> None:
    """Raise UnusableModelError unless callers of one arm can call the others."""
    stable, *others = arms
    for other in others:
        for kind in ("inputs", "outputs"):
            ours, theirs = (
                {spec.name: spec.describe() for spec in getattr(one.loaded.artifact.signature, kind)}
                for one in (other, stable)
            )
            if ours != theirs:
                raise UnusableModelError(f"{other.tag} has other {kind} than {stable.tag}; callers could not go on")


def _text(content: Any, name: str) -> str:
    text = content.get(name, "") if isinstance(content, dict) else None
    if not isinstance(text, str):
        raise RequestError(f'the parameter "{name}" must be a string')
    return text


def _for_caller(error: HoneError) -> RequestError:
    message = without_folder(str(error))
    if isinstance(error, StoreError):
        return NotFoundError(message)
    return UnusableModelError(message) if isinstance(error, ArtifactError) else RequestError(message)
