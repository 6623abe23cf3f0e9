"""Which variant is the best on this host: the proof's ranking, or a short one of its own where the host differs.

The best variants of a run are timed for half a second each, and the fastest goes first. It has to be clearly faster
than the proof's winner: a ranking of so little time must not change by chance. Nothing is timed where the host is as
the proof's was, where a plan is given, or where the run ranked by something else than latency.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import orjson

from hone import runtimes, store
from hone.errors import HoneError
from hone.files import atomic_write, locked
from hone.hardware import cores, host
from hone.hardware.differences import differences
from hone.store.trust import Policy, open_to_run

from ..settings import Settings
from .examples import example_inputs
from .measuring import seconds_of

logger = logging.getLogger("hone.serving")

RANKED = 3
TIMED_S = 0.5
GAIN = 1.1
"""So many times faster than the proof's winner another must be to go before it."""


def to_rank(best: store.Entry, settings: Settings) -> list[str]:
    """Return in what this host differs from the one that ranked, when that calls for a new ranking; else nothing."""
    manifest = best.artifact.manifest if best.artifact else None
    if manifest is None or manifest.measurements is None or manifest.selection is None:
        return []
    if not settings.rerank or settings.plan or manifest.selection.objective != "latency":
        return []
    return differences(manifest.measurements.host, {**host(), "runtime": runtimes.version_here(manifest.runtime)})


def ranked(entries: Sequence[store.Entry], settings: Settings, folder: Path | None = None) -> list[store.Entry]:
    """Return entries in the order in which this host should try them.

    Args:
        entries: best first, as their run ranked them.
        settings: of the service.
        folder: that the workers of a server share; the first of them times, the others follow.
    """
    usable = [entry for entry in entries if entry.eligible and not store.host_problem(entry)]
    usable = [entry for entry in usable if entry.run == usable[0].run][:RANKED]
    # An engine for another GPU would have to be built, which takes minutes; where there is one, it is the fastest.
    if len(usable) < 2 or any(entry.opened(verify=False).runtime == "tensorrt" for entry in usable):
        return list(entries)
    reasons = to_rank(usable[0], settings)
    if not reasons:
        return list(entries)
    seconds = _shared(usable, settings, folder)
    if usable[0].tag not in seconds or len(seconds) < 2:
        return list(entries)
    order = sorted((entry for entry in usable if entry.tag in seconds), key=lambda entry: seconds[entry.tag])
    if seconds[usable[0].tag] < GAIN * seconds[order[0].tag]:
        order.sort(key=lambda entry: entry is not usable[0])
    told = ", ".join(f"{entry.tag} {seconds[entry.tag] * 1e3:.3g} ms" for entry in order)
    logger.info("this host isn't the proof's (%s): timed anew: %s", "; ".join(reasons), told)
    return [*order, *(entry for entry in entries if entry not in order)]


def _shared(usable: Sequence[store.Entry], settings: Settings, folder: Path | None) -> dict[str, float]:
    if folder is None:
        return _timed(usable, settings)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = folder / f"ranking-{usable[0].name}-{usable[0].run}.json"
    with locked(folder / "ranking.lock"):
        if known.is_file():
            return dict(orjson.loads(known.read_bytes()))
        seconds = _timed(usable, settings)
        atomic_write(known, orjson.dumps(seconds).decode())
    return seconds


def _timed(usable: Sequence[store.Entry], settings: Settings) -> dict[str, float]:
    """Return seconds of a batch by tag, the shortest of each; what fails, or may not run, is left out.

    One after the other: all in memory at once would take more of it than the service needs.
    """
    policy = Policy.of(code=settings.trust_code, keys=settings.trusted_keys)
    share = max(1, cores() // max(1, settings.workers))
    found = {}
    for entry in usable:
        try:
            artifact = open_to_run(entry, policy)
            selection = artifact.manifest.selection
            threads = settings.threads or min(share, selection.threads or 1 if selection else 1)
            runtime = runtimes.load(artifact, threads)
        except HoneError:
            continue  # it will be passed over, and the log will say why
        try:
            rows = (selection.batch or 1 if selection else 1) if artifact.signature.batchable else 1
            found[entry.tag] = seconds_of(runtime, example_inputs(artifact), rows, TIMED_S)
        except Exception as error:  # noqa: BLE001 - a variant that fails is not the fastest
            logger.warning("%s can't be timed: %s", entry.tag, error)
        finally:
            runtime.leave_thread()
            runtime.close()
    return found
