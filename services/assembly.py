"""What a worker is put together from at its start: what stands around its endpoints, its models, and their shadow."""

from __future__ import annotations

import gc
import logging
from collections.abc import Sequence
from pathlib import Path

from hone import store
from hone.errors import GoldenError

from .arms.counts import SharedArms
from .observe.statistics import SharedStatistics
from .routes.edge import Edge
from .routes.hub import Hub
from .settings import Settings

logger = logging.getLogger("hone.serving")


def build_edge(settings: Settings, folder: Path) -> Edge:
    """Return what stands around the endpoints, as the settings ask for it.

    Args:
        folder: that the workers of this server share.

    Raises:
        HoneError: a key file, log or library that a setting needs is missing or broken.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    edge = Edge(settings, statistics=SharedStatistics(folder), arms=SharedArms(folder))
    if settings.secured or settings.rate_per_s:
        from .access.gate import make_gate

        edge.gate = make_gate(settings, folder)
    if settings.audit_log:
        from hone.audit import open_log

        edge.audit = open_log(settings.audit_log, folder)
    if settings.cache_mb:
        from .cache.predictions import make_cache

        edge.cache = make_cache(settings)
    if settings.record_dir:
        from .observe.recording import make_recorder

        edge.recorder = make_recorder(settings)
    if settings.drift_dir:
        from .observe.drift import make_sketcher

        edge.sketcher = make_sketcher(settings)
    if settings.feedback_dir:
        from .feedback.collector import make_collector

        edge.collector = make_collector(settings)
    if settings.trace_sample:
        from .observe.tracing import Tracer

        edge.tracer = Tracer(settings.trace_sample)
    return edge


async def load_models(hub: Hub, entries: Sequence[store.Entry], more: Sequence[str]) -> None:
    """Load what a service was given: of each name among `entries` the best, and beside them what `more` refers to.

    The first name answers `/predict`. Where a name has several versions, the one given first answers the paths
    without a version.

    One whose answers are those of its proof in no variant is withdrawn: the worker answers for the others, unready.

    Raises:
        HoneError: one isn't stored, is corrupt or can't run here.
    """
    by_name: dict[str, list[list[store.Entry]]] = {}
    for entry in entries:
        by_name.setdefault(entry.name, [[]])[0].append(entry)
    for reference in more:
        found = hub.candidates(reference)
        versions = by_name.setdefault(found[0].name, [])
        if found not in versions:
            versions.append(found)
    for name, versions in by_name.items():
        for found in reversed(versions):  # the last to be loaded answers
            try:
                await hub.load(name, keep=True, entries=found)
            except GoldenError as error:
                # Ending here would only start the worker again, on a host that stays as it is.
                hub.withdraw(name, str(error))


async def attach_shadow(hub: Hub, settings: Settings) -> None:
    """Load the shadow's model and let it see a copy of the default model's traffic."""
    if not settings.shadow:
        return
    from .observe.shadow import Shadow

    if hub.default in hub.withdrawn:
        return
    primary = hub.get(hub.default)
    candidate = await hub.load_aside(settings.shadow)
    if candidate.tag == primary.tag:
        logger.warning("HONE_SHADOW=%s is %s, which serves: it is compared with itself", settings.shadow, primary.tag)
    primary.shadow = Shadow(candidate.infer, sample=settings.shadow_sample, observe=primary.metrics.shadow)


def freeze_heap() -> None:
    """Keep the garbage collector away from everything that start-up made, and let it run rarely.

    A full collection walks every live object: with BentoML and a runtime loaded that stops the worker for tens of
    milliseconds, which shows as the service's p99. What requests make is freed by reference counts.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
