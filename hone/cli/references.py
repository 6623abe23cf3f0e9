"""References of the store as arguments of commands."""

from __future__ import annotations

import click


def pinned(_: click.Context, __: click.Parameter, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    """Replace `NAME@ALIAS` by what it means now: a callback of click, where what is written is about a version."""
    if isinstance(value, tuple):
        return tuple(_pinned(one) for one in value)
    return _pinned(value)


def _pinned(reference: str) -> str:
    if "@" not in reference or "://" in reference:
        return reference
    from hone import store

    return store.pinned(reference)
