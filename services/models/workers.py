"""How many workers serve a model best on this host."""

from __future__ import annotations

from hone import store
from hone.hardware import cores

from ..settings import Settings
from .calibration import calibrate
from .examples import example_inputs


def recommend_workers(tag: str) -> int:
    """Return how many worker processes serve a stored model best on this host.

    A model that runs on the event loop shares one core with the handling of requests: a worker for each core. One
    that runs in threads already uses the cores from one worker, with one copy of its weights.
    """
    artifact = store.resolve(tag).opened()
    prepared = calibrate(tag, artifact, example_inputs(artifact), Settings(workers=cores()))
    prepared.runtime.close()
    return cores() if prepared.plan.inline else 1
