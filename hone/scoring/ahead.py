"""Reading before it is asked for, and writing while others go on: a thread each, with a short queue."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

Item = TypeVar("Item")
LOOK_S = 0.1
"""Between two looks whether the other end has gone."""


class Ahead(Generic[Item]):
    """Iterates in a thread, a few items ahead of who takes them.

    Args:
        items: what it raises is raised where its items are taken.
        depth: items that wait at most.
    """

    def __init__(self, items: Iterable[Item], depth: int = 2) -> None:
        self._queue: Queue[Item | BaseException | None] = Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(items,), name="read-ahead", daemon=True)
        self._thread.start()

    def _fill(self, items: Iterable[Item]) -> None:
        try:
            for item in items:
                if not self._put(item):
                    return
            self._put(None)
        except BaseException as error:  # noqa: BLE001 - the other thread raises it
            self._put(error)

    def _put(self, item: Item | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=LOOK_S)
            except Full:
                continue
            return True
        return False

    def __iter__(self) -> Iterator[Item]:
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop reading, and wait until it has."""
        self._stopped.set()
        self._thread.join()


class Behind(Generic[Item]):
    """Hands items to a function in a thread, in order.

    Args:
        take: gets each item.
        idle: called now and then while there is none.
        depth: items that wait at most.
    """

    def __init__(self, take: Callable[[Item], None], idle: Callable[[], None], depth: int = 4) -> None:
        self._take, self._idle = take, idle
        self._queue: Queue[Item | None] = Queue(depth)
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._drain, name="write-behind", daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=LOOK_S)
            except Empty:
                self._guarded(self._idle)
                continue
            if item is None:
                return
            self._guarded(self._take, item)

    def _guarded(self, call: Callable[..., None], *items: Item) -> None:
        if self._failure is None:
            try:
                call(*items)
            except BaseException as error:  # noqa: BLE001 - the other thread raises it
                self._failure = error

    def put(self, item: Item) -> None:
        """Hand one over; raises what the function raised before."""
        if self._failure is not None:
            raise self._failure
        self._queue.put(item)

    def close(self) -> None:
        """Wait until all are taken; raises what the function raised."""
        self._queue.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure
