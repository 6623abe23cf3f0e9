"""Processes apart that run the same model: each answers one batch at a time, and one that ends is started again."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import numpy as np

from hone.apart.process import EndedError, Process, Program
from hone.errors import ModelError, RestartingError

logger = logging.getLogger("hone.python")

WAITS_S = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Before a process is started again, by how often one ended since the last answer."""


class Pool:
    """Several processes of one program.

    Safe for several threads.

    Args:
        program: what they run.
        instances: how many there are.
        waits_s: before one is started again, the first time, the second, …; none: `WAITS_S`.

    Raises:
        ModelError: one doesn't start.
    """

    def __init__(self, program: Program, instances: int = 1, waits_s: tuple[float, ...] = ()) -> None:
        self._program, self._waits_s = program, waits_s or WAITS_S
        self._changed = threading.Condition()
        self._free: list[Process] = []
        self._living: set[Process] = set()
        self._closed = threading.Event()
        self._ended_in_a_row = 0
        self._problem = ""
        with ThreadPoolExecutor(instances) as starting:
            futures = [starting.submit(Process, program) for _ in range(instances)]
        errors = [error for future in futures if (error := future.exception())]
        for future in futures:
            if not future.exception():
                self._add(future.result())
        if errors:
            self.close()
            raise errors[0]

    @property
    def problem(self) -> str:
        """Why nothing can be answered now; empty while a process is there."""
        return "" if self._living else self._problem

    def processes(self) -> tuple[int, ...]:
        """Return the ids of the processes that are there."""
        with self._changed:
            return tuple(process.pid for process in self._living)

    def call(self, inputs: dict[str, np.ndarray], outputs: list[str]) -> dict[str, np.ndarray]:
        """Return the answer to one batch, by a process that is free, or the first that will be.

        Raises:
            RowsError, ModelError, EndedError: as `Process.call`.
            RestartingError: no process is there.
        """
        process = self._take()
        try:
            answer = process.call(inputs, outputs)
        except EndedError as error:
            self._ended(process, str(error))
            raise
        except ModelError:
            self._give_back(process)
            raise
        except BaseException:
            process.close()  # an answer to nobody may be on its way
            self._ended(process, "its process was ended: a call was broken off")
            raise
        if process.closed:
            self._ended(process, "")  # it held too much, once it had answered
        else:
            self._give_back(process)
        return answer

    def _take(self) -> Process:
        until = monotonic() + self._program.timeout_s
        with self._changed:
            while not self._free:
                if not self._living or monotonic() >= until:
                    busy = f"{self._program.reference}: its processes are busy"
                    raise RestartingError(busy if self._living else self._problem or "it is closed")
                self._changed.wait(until - monotonic())
            return self._free.pop()

    def _give_back(self, process: Process) -> None:
        with self._changed:
            self._ended_in_a_row = 0
            if process in self._living:
                self._free.append(process)
                self._changed.notify()

    def _add(self, process: Process) -> None:
        with self._changed:
            closed = self._closed.is_set()
            if not closed:
                self._living.add(process)
                self._free.append(process)
                self._changed.notify()
        if closed:
            process.close()
            return
        threading.Thread(target=self._watch, args=(process,), daemon=True, name="python-watch").start()

    def _watch(self, process: Process) -> None:
        """Notice a process that ends while nobody asks it anything."""
        process.wait()
        self._ended(process, "")

    def _ended(self, process: Process, why: str) -> None:
        """Have a process that has ended started again; told a second time of the same one, do nothing."""
        with self._changed:
            if process not in self._living or self._closed.is_set():
                return
            self._living.remove(process)
            if process in self._free:
                self._free.remove(process)
            why = why or f"{self._program.reference}: its process {process.death()}"
            self._problem = f"{why}; it is being started again"
            wait_s = self._waits_s[min(self._ended_in_a_row, len(self._waits_s) - 1)]
            self._ended_in_a_row += 1
            self._changed.notify_all()
        process.close()
        logger.error("%s: %s; it is started again%s", self._program.name, why, f" in {wait_s:g} s" if wait_s else "")
        threading.Thread(target=self._start_again, args=(wait_s,), daemon=True, name="python-restart").start()

    def _start_again(self, wait_s: float) -> None:
        while not self._closed.wait(wait_s):
            try:
                process = Process(self._program)
            except ModelError as error:
                with self._changed:
                    self._ended_in_a_row += 1
                    wait_s = self._waits_s[min(self._ended_in_a_row, len(self._waits_s) - 1)]
                    self._problem = f"{error}; it is being started again"
                logger.error("%s: %s; it is started again in %g s", self._program.name, error, wait_s)
                continue
            self._add(process)
            return

    def close(self) -> None:
        """End all processes."""
        self._closed.set()
        with self._changed:
            processes, self._living, self._free = list(self._living), set(), []
            self._changed.notify_all()
        for process in processes:
            process.close()
