"""The aliases that a service was given, `digits@champion` for one: what they mean, and whether that has changed.

The registry is a file beside the store, which every worker looks at a few times a second; that costs a stat.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from hone import store
from hone.errors import HoneError
from hone.store.registry import file_of

logger = logging.getLogger("hone.serving")

Stamp = tuple[int, int, int]
"""Of a file: another when it was replaced."""


class Followed:
    """References of a service that are aliases, in the order in which it was given them.

    Args:
        references: of the service; others than aliases are left out.
    """

    def __init__(self, references: Iterable[str] = ()) -> None:
        self._references = [one for one in dict.fromkeys(references) if "@" in one]
        self._names = list(dict.fromkeys(one.partition("@")[0] for one in self._references))
        self._stamps: dict[str, Stamp | None] = {}
        self._meant: dict[str, str] = {}

    def moved(self) -> list[str]:
        """Return the models whose registry is another than at the last look; all of them at the first."""
        found = {name: _stamp(name) for name in self._names}
        moved = [name for name, stamp in found.items() if name not in self._stamps or self._stamps[name] != stamp]
        self._stamps = found
        return moved

    def look_again(self, name: str) -> None:
        """Let the next look find a model moved."""
        self._stamps.pop(name, None)

    def meant(self, name: str) -> dict[str, str]:
        """Return the tag of each alias of a model, the one that was given last first.

        What means nothing any more, or what isn't stored, goes on meaning what it did.
        """
        found = {}
        for reference in reversed([one for one in self._references if one.partition("@")[0] == name]):
            try:
                found[reference] = store.resolve(reference).tag
            except HoneError as error:
                logger.error("%s stays as it is: %s", reference, error)
                if reference in self._meant:
                    found[reference] = self._meant[reference]
        return found

    def retired(self, name: str, meant: dict[str, str], loaded: set[str]) -> set[str]:
        """Return which of the tags that are loaded were served for a model's aliases, and are meant no more.

        Before the first `settle` that is all of them: they were loaded for what the aliases meant a moment earlier.
        """
        before = {tag for reference, tag in self._meant.items() if reference.partition("@")[0] == name}
        return (before or loaded) - set(meant.values())

    def settle(self, meant: dict[str, str]) -> None:
        """Remember what is served for aliases."""
        self._meant |= meant


def _stamp(name: str) -> Stamp | None:
    try:
        state = file_of(name).stat()
    except OSError:
        return None
    return state.st_mtime_ns, state.st_ino, state.st_size
