"""What a run sends and when: requests made of rows, their sizes, their order, their moments."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hone.errors import HoneError
from hone.signature import Signature

from ..scenarios import Scenario
from .payload import Pool, Rows
from .target import Target
from .wire import Call, Wire

FEWEST = 16
MOST = 4096
"""Different requests of one size."""
MOST_BYTES = 256_000_000
"""Of all requests' rows together."""
CYCLE = 10_000
"""Requests after which a closed loop sends the same ones in the same order again."""


LONG_GAP_S = 10.0


@dataclass(frozen=True)
class Workload:
    """Requests, and which of them is sent when.

    Attributes:
        calls: different requests; each knows how many rows it has.
        inputs: of each call.
        rows: that they are made of.
        order: of the calls; a closed loop takes it from the front again.
        arrivals: open loop: seconds from the start, in order, one for each of `order`.
    """

    calls: list[Call]
    inputs: list[Pool]
    rows: Rows
    order: np.ndarray
    arrivals: np.ndarray | None

    @property
    def words(self) -> str:
        """What is sent, in words."""
        gap = 0.0 if self.arrivals is None or len(self.arrivals) < 2 else float(np.diff(self.arrivals).max())
        pause = f"; the longest gap is {gap:.0f} s" if gap >= LONG_GAP_S else ""
        return f"{self.rows.words}{pause}"


def make(target: Target, scenario: Scenario, rows: Rows, wire: Wire) -> Workload:
    """Return a scenario's requests, made of some rows.

    Args:
        target: the model.
        scenario: the load; an open loop without a rate has no arrivals yet: see `at`.
        rows: to make them of.
        wire: protocol to send them in.

    Raises:
        HoneError: the model has no batch axis and several rows are to be sent, or requests would be too large.
    """
    inputs, sizes = requests(rows.pool, target.signature, tuple(scenario.shares), scenario.seed)
    workload = Workload(calls_of(target, inputs, sizes, wire), inputs, rows, np.zeros(0, np.uint32), None)
    return at(workload, scenario)


def at(workload: Workload, scenario: Scenario) -> Workload:
    """Return the same requests at a scenario's times, with its sizes in their shares.

    Raises:
        HoneError: they are too many.
    """
    timed = scenario.kind == "open" and scenario.rate is not None
    arrivals = scenario.arrivals() if timed else None
    if arrivals is not None and not len(arrivals):
        raise HoneError("the load test would make no request; raise the rate or the duration")
    sizes = np.array([call.rows or 1 for call in workload.calls])
    order = order_of(sizes, scenario.shares, CYCLE if arrivals is None else len(arrivals), scenario.seed)
    return replace(workload, order=order, arrivals=arrivals)


def calls_of(target: Target, inputs: list[Pool], sizes: np.ndarray, wire: Wire) -> list[Call]:
    """Return the requests for some inputs; each knows its rows where the model has a batch axis."""
    known = sizes if target.signature.batchable else np.zeros(len(sizes), int)
    made = (wire.call(target.path, target.signature, part) for part in inputs)
    return [replace(call, rows=int(count)) for call, count in zip(made, known, strict=True)]


def requests(
    pool: Pool, signature: Signature, sizes: tuple[int, ...] = (1,), seed: int = 0
) -> tuple[list[Pool], np.ndarray]:
    """Return the inputs of different requests, and how many rows each has.

    Every row of the pool is in a request where memory allows it. A model whose inputs don't all have the batch axis
    first takes the pool as it is.

    Raises:
        HoneError: several rows for a model that takes one thing at a time, or one request too large for memory.
    """
    if not all(spec.batchable for spec in signature.inputs):
        if max(sizes) > 1:
            raise HoneError("the model has no batch axis: --rows must be 1")
        return [pool], np.ones(1, int)
    random = np.random.default_rng(seed)
    available = len(next(iter(pool.values())))
    row_bytes = max(1, sum(values.nbytes for values in pool.values()) // available)
    made: list[Pool] = []
    counts: list[int] = []
    for size in sizes:
        fit = MOST_BYTES // len(sizes) // (row_bytes * size)
        if not fit:
            raise HoneError(f"a request of {size} rows has over {MOST_BYTES // len(sizes):,} bytes; give fewer rows")
        count = min(max(math.ceil(available / size), FEWEST), MOST, fit)
        turns = math.ceil(count * size / available)
        shuffled = np.concatenate([random.permutation(available) for _ in range(turns)])
        for number in range(count):
            index = shuffled[number * size : (number + 1) * size]
            made.append({name: values[index] for name, values in pool.items()})
            counts.append(size)
    return made, np.array(counts)


def order_of(sizes: np.ndarray, shares: dict[int, float], count: int, seed: int) -> np.ndarray:
    """Return which of some requests is sent when, so that their sizes have their shares.

    Args:
        sizes: rows of each request.
        shares: of the requests that have so many rows; together 1.
        count: of requests to send.
        seed: of the order.
    """
    names = list(shares)
    wanted = np.array([shares[name] for name in names]) * count
    counts = np.floor(wanted).astype(int)
    # What rounding left over goes where most was cut off: the shares hold in the run, not only on average.
    for place in np.argsort(counts - wanted, kind="stable")[: count - counts.sum()]:
        counts[place] += 1
    parts = []
    for name, times in zip(names, counts, strict=True):
        places = np.flatnonzero(sizes == name) if len(names) > 1 else np.arange(len(sizes))
        parts.append(np.resize(places, times))
    order = np.concatenate(parts)
    if len(names) > 1:
        np.random.default_rng(seed).shuffle(order)
    return order.astype(np.uint32)
