"""Which settings are tried: those that the machine's cores and the model's artifact allow, the service's own first."""

from __future__ import annotations

from itertools import zip_longest

from hone import runtimes, store
from hone.errors import HoneError
from hone.hardware import cores

from ..tuned import Choice

ROWS = (1, 8, 64)
"""Rows of a batch at most: alone, a few, and as many as a service tries by itself."""


def variants(reference: str) -> tuple[list[store.Entry], list[str]]:
    """Return the stored variants that are tried, and a line for each that can't run here.

    Args:
        reference: NAME stands for all of the newest run that met the budget; one with a variant or version for that.

    Raises:
        StoreError: nothing answers to the reference.
        HoneError: none can run on this host.
    """
    winner = store.resolve(reference)
    if store.names_version(reference):
        found = [winner]
    else:
        found = [entry for entry in store.entries(winner.name) if entry.run == winner.run and entry.eligible]
    problems = {entry.tag: store.host_problem(entry) for entry in found}
    lines = [f"{tag} is left out: {problem}" for tag, problem in problems.items() if problem]
    there = [entry for entry in found if not problems[entry.tag]]
    if not there:
        raise HoneError("no stored variant can run on this host: " + "; ".join(lines))
    return there, lines


def candidates(entries: list[store.Entry], rows: int, workers: int | None = None, most: int = 0) -> list[Choice]:
    """Return the settings to try, of all variants in turns: when time ends, each had its likely ones tried.

    Args:
        entries: variants that this host can run.
        rows: in each request: a batch holds at least one request.
        workers: the only number of them; None: any.
        most: cores to use; 0: this host's.
    """
    lists = [_of(entry, rows, workers, most or cores()) for entry in entries]
    return [choice for turn in zip_longest(*lists) for choice in turn if choice is not None]


def _of(entry: store.Entry, rows: int, workers: int | None, most: int) -> list[Choice]:
    artifact = entry.opened(verify=False)
    runtime = runtimes.runtime_class(artifact.runtime)
    sizes = [size for size in ROWS if size >= rows] or [rows]
    if not artifact.signature.batchable:
        sizes = [1]
    ways = [
        (count, threads, in_flight)
        for count in ([workers] if workers else _powers(most))
        for threads in _powers(max(1, most // count) if runtime.threads_adjustable else 1)
        for in_flight in _powers(max(1, most // (count * threads)) if runtime.concurrent else 1)
    ]
    # Those that keep most cores busy first: they are the fastest as a rule, and the small ones are the cheapest.
    ways.sort(key=lambda way: (-way[0] * way[1] * way[2], way))
    given = [
        Choice(model=entry.tag, workers=count, threads=threads, in_flight=in_flight, max_batch_rows=size)
        for size in sorted(sizes, reverse=True)
        for count, threads, in_flight in ways
    ]
    return [Choice(model=entry.tag, workers=workers or 1), *given]


def _powers(most: int) -> list[int]:
    """Return 1, 2, 4 ... and the most itself."""
    found = [1]
    while found[-1] * 2 <= most:
        found.append(found[-1] * 2)
    return found if found[-1] == most else [*found, most]
