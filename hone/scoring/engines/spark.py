"""Spark: ranges of rows are a table of a partition each, and executors map it (`mapInArrow`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from hone.errors import UnavailableError, one_line

from ..errors import ScoreError
from ..run import Spread
from .work import Order, Plan, Row, scored, spread

RANGES, DONE = "first long, stop long", "first long, stop long, error string"


def on_spark(workers: int | None) -> Spread:
    """Return what scores rows on Spark: the session of the surroundings (`spark-submit`, SPARK_CONF_DIR), else of this
    machine.

    Raises:
        UnavailableError: PySpark isn't installed.
        ScoreError: there is no Java, or no cluster.
    """
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise UnavailableError("--engine spark needs PySpark", "pip install 'hone[spark]', and a Java 17") from None
    # Without it executors run the first python3 on their path, whatever that is.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.appName("hone score").config("spark.ui.showConsoleProgress", "false")
    try:
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
    except Exception as error:
        raise ScoreError(f"Spark can't be started: {one_line(error)}") from error
    context = session.sparkContext

    def deal(plan: Plan) -> Iterable[Row]:
        if not plan.ranges:
            return []
        # Of one partition each: what a worker takes next is decided when it has room, not before.
        pairs = context.parallelize(list(plan.ranges), len(plan.ranges))
        table = session.createDataFrame(pairs, RANGES)
        return [row.asDict() for row in table.mapInArrow(mapper(plan.order), DONE).collect()]

    return spread(deal, lambda: int(context.defaultParallelism), workers, context.cancelAllJobs)


def mapper(order: Order) -> Any:
    """Return what an executor's Python does with the ranges that it gets."""

    def scores(batches: Iterator[Any]) -> Iterator[Any]:
        import pyarrow as pa

        for batch in batches:
            rows = [scored(order, row["first"], row["stop"]) for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(
                rows, pa.schema([("first", "int64"), ("stop", "int64"), ("error", "string")])
            )

    return scores
