"""The models of a worker: which are in memory, under which paths they answer, and how one takes another's place.

A model is loaded beside the one that serves, warm and measured, before its paths are switched to it; the old version
answers what it has accepted, and only then is its memory given back. So no request fails for a swap.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from hone import store
from hone.errors import HoneError

from ..arms.active import Splits
from ..arms.split import Split
from ..batching.priority import run_behind
from ..batching.scheduler import Scheduler
from ..http.failures import MistrustedError, NotFoundError
from ..models.loading import LoadedModel, candidates, load_or_spare, packed
from ..observe.metrics import count_golden
from .edge import Edge
from .served import ServedModel
from .splits.routing import Handler, routes_of

logger = logging.getLogger("hone.serving")

SICK_AFTER = 3
"""Batches that failed in a row, alone too, until a runtime is looked at."""

HEAL_S = 10.0
"""At least so long between two looks: rows that break a model must not keep it loading."""


class Hub:
    """Models in memory by name and version.

    Args:
        edge: what stands around every endpoint.
        scheduler: of the worker.
        module_file: of the service's module, from which a bento finds the models it was built with.
        folder: that the workers of this server share.

    Attributes:
        routes: path -> handler of everything that infers.
        default: the name that `/predict` answers for.
        draining: the worker is about to stop, and no more requests should be sent to it.
        withdrawn: why a model isn't answered for, by name: none of it that is left answers as it was proven to.
        splits: of models' requests among their versions.
    """

    def __init__(self, edge: Edge, scheduler: Scheduler, module_file: str = "", folder: Path | None = None) -> None:
        self.routes: dict[str, Handler] = {}
        self.default = ""
        self.draining = False
        self.withdrawn: dict[str, str] = {}
        self.splits = Splits(folder, edge.arms)
        self._edge = edge
        self._scheduler = scheduler
        self._module_file = module_file
        self._folder = folder
        self._models: dict[str, dict[str, ServedModel]] = {}
        self._newest: dict[str, ServedModel] = {}
        self._aside: list[ServedModel] = []
        self._healed: dict[str, float] = {}
        self._lock = asyncio.Lock()
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def ready(self) -> bool:
        """True while requests are welcome, and each model is there to answer them."""
        return not self.draining and not self.withdrawn and bool(self.routes) and not self.ailing

    @property
    def ailing(self) -> bool:
        """True while a model can't answer because its process is started again."""
        return any(served.loaded.runtime.problem for served in self.models())

    def drain(self) -> None:
        """Report not ready from now on; requests that come all the same are answered."""
        self.draining = True

    def models(self) -> list[ServedModel]:
        """Return every model in memory."""
        return [served for versions in self._models.values() for served in versions.values()]

    def candidates(self, reference: str) -> list[store.Entry]:
        """Return what a reference may stand for, best first; raises StoreError when there is nothing."""
        return candidates(reference, self._module_file, self._edge.settings)

    def loadable(self) -> list[store.Entry]:
        """Return what can be loaded: what the bento holds, or from a checkout what the store does."""
        there = packed(self._module_file)
        return store.entries() if there is None else there

    def names(self) -> list[str]:
        return list(self._models)

    def versions(self, name: str) -> list[str]:
        return list(self._models.get(name, {}))

    def get(self, name: str, version: str = "") -> ServedModel:
        """Return a model; without a version, which may be its number, the one loaded last.

        Raises:
            NotFoundError: it isn't loaded.
            MistrustedError: it was, and gave other answers than its proof.
        """
        versions = self._models.get(name)
        if not versions and name in self.withdrawn:
            raise MistrustedError(name)
        if not versions:
            raise NotFoundError(f"no model '{name}' is loaded; there is {', '.join(self._models) or 'none'}")
        if not version:
            return self._newest[name]
        found = versions.get(version) or next((each for each in versions.values() if each.number == version), None)
        if found is None:
            raise NotFoundError(f"no version '{version}' of '{name}' is loaded; there is {', '.join(versions)}")
        return found

    async def load(
        self, reference: str, *, keep: bool = False, beside: bool = False, entries: list[store.Entry] | None = None
    ) -> ServedModel:
        """Load a stored model, or load it again, and switch its paths to it.

        Args:
            reference: NAME, NAME:VARIANT or a full tag.
            keep: other versions of the same name stay loaded beside it.
            beside: it takes no path from another version, and answers under its own, or as the arm of a split.
            entries: what `reference` stands for, when that is known already.

        Raises:
            HoneError: it isn't stored, is corrupt or can't run here; what served before still does.
        """
        async with self._lock:
            loaded = await self._read(reference, entries)
            return self._switch(loaded, keep or beside, beside)

    async def _read(self, reference: str, entries: list[store.Entry] | None) -> LoadedModel:
        """Load, time and check, while requests come in."""
        return await run_behind(self._edge.settings.inference_nice, self._load, reference, entries)

    def _load(self, reference: str, entries: list[store.Entry] | None) -> LoadedModel:
        found = entries or self.candidates(reference)
        loaded = load_or_spare(found, self._edge.settings, self._folder, self._module_file)
        loaded.runtime.leave_thread()
        return loaded

    def _switch(self, loaded: LoadedModel, keep: bool, beside: bool = False) -> ServedModel:
        served = ServedModel(loaded, self._scheduler, self._edge)
        name = served.entry.name
        versions = self._models.setdefault(name, {})
        arms = self.splits.versions(name)
        gone = [old for v, old in versions.items() if v == served.entry.version or not (keep or v in arms)]
        for old in gone:
            del versions[old.entry.version]
            if old.shadow is not None:
                served.shadow, old.shadow = old.shadow, None
        versions[served.entry.version] = served
        if not beside or self._newest.get(name) in (None, *gone):  # what it takes the place of may have answered
            self._newest[name] = served
        self.default = self.default or name
        self.withdrawn.pop(name, None)
        self._route()
        for old in gone:
            self._retire(old)
        return served

    def prefer(self, name: str, version: str) -> None:
        """Let a loaded version answer the paths without a version."""
        chosen = self.get(name, version)
        if self._newest[name] is not chosen:
            # What answers comes last among the versions, as if it had been loaded last.
            self._models[name][chosen.entry.version] = self._models[name].pop(chosen.entry.version)
            self._newest[name] = chosen
            self._route()

    def share_out(self, splits: Iterable[Split]) -> None:
        """Split models' requests so, and those of no others."""
        self.splits.replace(splits)
        self._route()

    async def load_aside(self, reference: str) -> ServedModel:
        """Load a stored model that answers under no path, such as a shadow.

        Raises:
            HoneError: it isn't stored, is corrupt or can't run here.
        """
        async with self._lock:
            served = ServedModel(await self._read(reference, None), self._scheduler, self._edge)
        self._aside.append(served)
        return served

    async def unload(self, name: str, version: str = "") -> None:
        """Stop serving a model, or one version; what it has accepted is still answered. A withdrawn one is forgotten.

        Raises:
            NotFoundError: it isn't loaded.
        """
        async with self._lock:
            if name in self.withdrawn and name not in self._models:
                del self.withdrawn[name]
                self._route()
                return
            named = self.get(name, version).entry.version
            gone = self._drop(name, [named] if version else list(self._models[name]))
            self._route()
            await asyncio.gather(*(self._retire(old) for old in gone))

    def _drop(self, name: str, versions: list[str]) -> list[ServedModel]:
        gone = [self._models[name].pop(version) for version in versions]
        if self._models[name]:
            self._newest[name] = list(self._models[name].values())[-1]
        else:
            del self._models[name], self._newest[name]
        return gone

    def withdraw(self, name: str, reason: str) -> None:
        """Answer for a model that none of its variants may: callers get 503, and the worker isn't ready."""
        logger.error("%s is not served: %s", name, reason)
        self.default = self.default or name
        self.withdrawn[name] = reason
        self._route()

    async def check_golden(self) -> None:
        """Compare every model's answers with its proof's; one that differs is loaded again, or the next best is.

        From the moment that it is known to be wrong until another takes its place, nothing is answered for it.
        """
        for served in [*self.models(), *self._aside]:
            checked = await served.compare()
            if checked is None or self.draining:
                continue
            count_golden(served.entry.name, served.entry.version, checked.match)
            if not checked.match:
                logger.error("%s gives %s", served.tag, checked.describe())
                if served in self.models():
                    await self._replace(served)

    async def _replace(self, served: ServedModel) -> None:
        name, version, others = served.entry.name, served.entry.version, list(served.loaded.others)
        self._edge.cache_epoch = f"-{secrets.token_hex(4)}"  # what was remembered may be wrong
        shadow, served.shadow = served.shadow, None
        beside = self._newest.get(name) is not served
        async with self._lock:
            if self._models.get(name, {}).get(version) is not served:
                return
            self._drop(name, [version])
            if name not in self._models:
                self.withdraw(name, f"{version} gave other answers than its proof's")
            self._route()
            self._retire(served)
        try:
            (await self.load(served.tag, keep=True, beside=beside, entries=others)).shadow = shadow
        except HoneError as error:
            logger.error("nothing takes the place of %s: %s", served.tag, error)
            if shadow is not None:
                await shadow.close()

    def _retire(self, served: ServedModel) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(served.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    def _route(self) -> None:
        """Point every path at its model, all at once: a request sees the paths before or after, never between."""
        self.routes = routes_of(
            self._models, self._newest, self.splits.active, self.withdrawn, self.default, self._edge
        )

    async def heal(self) -> None:
        """Make the runtimes anew that fail on everything, such as one whose GPU context is lost."""
        for served in self.models():
            if served.failures_in_a_row < SICK_AFTER or monotonic() - self._healed.get(served.tag, -HEAL_S) < HEAL_S:
                continue
            self._healed[served.tag] = monotonic()
            if await served.works():
                continue  # it was the callers' rows
            logger.error("%s fails on everything; loading it again", served.tag)
            try:
                await self.load(served.tag, beside=True)
            except HoneError as error:
                logger.error("%s can't be loaded again: %s", served.tag, error)

    def flush(self) -> None:
        """Bring every model's metrics up to date."""
        self._edge.flush()
        for served in [*self.models(), *self._aside]:
            served.flush()
        self.splits.flush()
        self._edge.statistics.publish()

    async def close(self) -> None:
        """Answer what was accepted and unload everything."""
        models = [*self.models(), *self._aside]
        self._models, self._newest = {}, {}
        self.routes = {}
        for served in models:
            self._retire(served)
        while self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)
