"""Which stored versions are old enough to go: all but the newest runs, and what an alias means."""

from __future__ import annotations

from hone import store
from hone.store.registry import registered


def outdated(name: str | None, keep: int) -> list[store.Entry]:
    """Return the versions of older runs, of one model or of each.

    What an alias means stays, and so does what no run is known of: it was imported, and may not be had again.

    Args:
        keep: newest runs of each model that stay, 1 or more.

    Raises:
        StoreError: no such model.
    """
    found = store.entries(name)
    if name is not None and not found:
        store.resolve(name)  # says what there is
    old = []
    for model in dict.fromkeys(entry.name for entry in found):
        mine = [entry for entry in found if entry.name == model and entry.run]
        newest = list(dict.fromkeys(entry.run for entry in mine))[:keep]
        registry = registered(model)
        old += [one for one in mine if one.run not in newest and not registry.aliases_of(one.version)]
    return old
