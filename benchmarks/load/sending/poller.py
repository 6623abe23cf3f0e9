"""Waits for connections, to the microsecond: epoll where there is one, else what the system has."""

from __future__ import annotations

import select
import selectors

from .connection import READ, WRITE


class Poller:
    """Which connections can go on.

    `select.epoll` counts in milliseconds, which is what a generator may be late by in all. So a wait for a moment is a
    `select` of the epoll itself, which counts in microseconds.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._fileno = [self._epoll.fileno()]
        self.modify = self._epoll.modify
        self.add = self._epoll.register
        self.remove = self._epoll.unregister

    def wait(self, seconds: float) -> list[tuple[int, int]]:
        """Return (file, events) of those that can go on, at the latest after so many seconds."""
        found = self._epoll.poll(0)
        if found or seconds <= 0:
            return found
        select.select(self._fileno, (), (), seconds)
        return self._epoll.poll(0)


class SelectorPoller:
    """The same where there is no epoll: macOS."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def add(self, fd: int, mask: int) -> None:
        self._selector.register(fd, _events(mask))

    def modify(self, fd: int, mask: int) -> None:
        self._selector.modify(fd, _events(mask))

    def remove(self, fd: int) -> None:
        self._selector.unregister(fd)

    def wait(self, seconds: float) -> list[tuple[int, int]]:
        found = self._selector.select(max(seconds, 0))
        return [
            (key.fd, (READ if events & selectors.EVENT_READ else 0) | (WRITE if events & selectors.EVENT_WRITE else 0))
            for key, events in found
        ]


def _events(mask: int) -> int:
    return (selectors.EVENT_READ if mask & READ else 0) | (selectors.EVENT_WRITE if mask & WRITE else 0)


def new_poller() -> Poller | SelectorPoller:
    return Poller() if hasattr(select, "epoll") else SelectorPoller()
