"""Ray: ranges of rows are a data set, and a pool of actors has the model."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterable
from typing import Any

import numpy as np

from hone.errors import UnavailableError

from ..run import Spread
from .work import Order, Plan, Row, scored, spread


class Actor:
    """A process that scores ranges.

    Args:
        order: of the run.
    """

    def __init__(self, order: Order) -> None:
        self._order = order

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        pairs = zip(batch["first"].tolist(), batch["stop"].tolist(), strict=True)
        rows = [scored(self._order, first, stop) for first, stop in pairs]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def on_ray(workers: int | None) -> Spread:
    """Return what scores rows on a Ray cluster: the one of RAY_ADDRESS, else one of this machine.

    Raises:
        UnavailableError: Ray isn't installed.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise UnavailableError("--engine ray needs Ray", "pip install 'hone[ray]'") from None
    # What Ray loads complains, as the process ends, about what no search for garbage has found before: let there be
    # one (`hone.processes.end_quickly`).
    atexit.unregister(gc.freeze)
    if not ray.is_initialized():
        ray.init(log_to_driver=False, configure_logging=False, include_dashboard=False)

    def deal(plan: Plan) -> Iterable[Row]:
        if not plan.ranges:
            return []
        ray.data.DataContext.get_current().enable_progress_bars = False
        items: list[Any] = [{"first": first, "stop": stop} for first, stop in plan.ranges]
        ranges = ray.data.from_items(items, override_num_blocks=len(items))
        done = ranges.map_batches(
            Actor,
            fn_constructor_args=(plan.order,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(plan.workers, len(items))),
            num_cpus=plan.cores,
        )
        return list(done.iter_rows())

    return spread(deal, lambda: int(ray.cluster_resources().get("CPU", 1)), workers, ray.shutdown)
