"""Parts of BentoML that are imported when they are used, and not at every start.

BentoML imports the client of its cloud, and the proxy to servers of other kinds, in each of its processes. With what
these import in turn (aiohttp, trio, WebSockets, rich) they are a third of a start and of an idle process's memory, and
a server of Hone calls none of it. In their place stand modules that become the real ones when something is asked of
them, so that nothing changes but the moment.

Which names BentoML takes from them at import was read from the version that `routes/server.py` pins; with another one
a start is slower, and `tests/services/test_deferred.py` fails.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

DEFERRED: Mapping[str, tuple[str, ...]] = {
    "bentoml._internal.cloud": ("BentoCloudClient",),
    "bentoml._internal.cloud.client": ("RestApiClient",),
    "bentoml._internal.cloud.schemas.modelschemas": ("LabelItemSchema", "ModelManifestSchema"),
    "bentoml._internal.cloud.schemas.schemasv1": ("CreateModelSchema",),
    "_bentoml_impl.server.proxy": ("create_proxy_app",),
    "_bentoml_impl.server.serving": ("serve_http",),
    "httpx._main": ("main",),  # the command line of httpx
    "uvicorn.protocols.websockets.wsproto_impl": ("WSProtocol",),
    "wsproto": (),
}
"""Modules, and what others take from each while they are imported."""


def defer() -> None:
    """Let what is in DEFERRED, and not imported yet, wait until it is used."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Finds a stand-in for each module of DEFERRED, once: the next time the real one is found."""

    def __init__(self) -> None:
        self._left = set(DEFERRED)

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in self._left:
            return None
        self._left.discard(name)
        its = PathFinder.find_spec(name, path)
        if its is None:
            return None
        found = ModuleSpec(name, _StandIn(), origin=its.origin)  # type: ignore[arg-type]
        found.submodule_search_locations = its.submodule_search_locations
        return found


class _StandIn:
    """Loads a stand-in."""

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        def get(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return getattr(real(module), name)

        for name in DEFERRED[module.__name__]:
            setattr(module, name, _Later(module, name))
        module.__getattr__ = get  # type: ignore[method-assign]


def real(stand_in: ModuleType) -> ModuleType:
    """Return the module that another one may stand for, and import it if need be."""
    if isinstance(stand_in.__loader__, _StandIn) and sys.modules.get(stand_in.__name__) is stand_in:
        del sys.modules[stand_in.__name__]
    return importlib.import_module(stand_in.__name__)


class _Later:
    """A function or class of a module that is imported when it is called or looked into."""

    def __init__(self, stand_in: ModuleType, name: str) -> None:
        self._stand_in, self._name = stand_in, name

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return getattr(real(self._stand_in), self._name)(*arguments, **named)

    def __instancecheck__(self, instance: object) -> bool:
        made = sys.modules.get(self._stand_in.__name__)
        return made is not self._stand_in and isinstance(instance, getattr(made, self._name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(getattr(real(self._stand_in), self._name), name)
