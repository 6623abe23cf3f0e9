"""OpenTelemetry traces of sampled requests: one span a request, with its wait and its inference inside.

Spans are made after the answer was written, from times that were taken anyway: a request that isn't sampled costs one
random number, and with tracing off nothing. The caller's `traceparent` (W3C Trace Context) decides when it has one.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import Any

from hone.errors import HoneError

from ..http.responses import Head

logger = logging.getLogger("hone.serving")

CLOSE_S = 3.0
"""A stopping server has better things to wait for than the last spans."""


class Tracer:
    """Sends spans to the OTLP endpoint of the standard environment variables (OTEL_EXPORTER_OTLP_ENDPOINT).

    Args:
        sample: share of requests without a `traceparent` that are traced, 0 to 1.

    Raises:
        HoneError: the exporter isn't installed.
    """

    def __init__(self, sample: float) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            raise HoneError("HONE_TRACE_SAMPLE needs the OTLP exporter; pip install 'hone[ops]'") from None
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ALWAYS_ON

        self._sample = sample
        self._random = random.Random()
        # ALWAYS_ON: whether a request is traced was decided before its span is made.
        # Not at exit: `close` ends it, and doesn't wait for ever.
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=Resource.create({"service.name": "hone"}), shutdown_on_exit=False
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("hone")

    def record(
        self,
        head: Head,
        protocol: str,
        model: str,
        status: int,
        seconds: float,
        rows: int,
        trail: list[tuple[float, float, int]] | None,
    ) -> None:
        """Make the spans of a request that has just ended, when it is sampled."""
        parent = head.get(b"traceparent")
        sampled = parent[-2:] not in (b"00", b"") if parent else self._random.random() < self._sample
        if not sampled:
            return
        ended = time.time_ns()
        started = ended - int(seconds * 1e9)
        attributes: dict[str, str | int] = {"hone.model": model, "hone.rows": rows, "http.response.status_code": status}
        span = self._tracer.start_span(
            f"infer {protocol}", self._context(parent), attributes=attributes, start_time=started
        )
        self._parts(span, started, ended, trail or [])
        if status >= 500:
            from opentelemetry.trace import Status, StatusCode

            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)

    def _parts(self, span: Any, started: int, ended: int, trail: list[tuple[float, float, int]]) -> None:
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(span)
        for queued, inference, rows in trail:
            begin = max(started, ended - int((queued + inference) * 1e9))
            middle = begin + int(queued * 1e9)
            self._tracer.start_span("queue", context, start_time=begin).end(middle)
            part = self._tracer.start_span(
                "inference", context, attributes={"hone.batch_rows": rows}, start_time=middle
            )
            part.end(min(ended, middle + int(inference * 1e9)))

    @staticmethod
    def _context(parent: bytes | None) -> Any:
        if not parent:
            return None
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        return TraceContextTextMapPropagator().extract({"traceparent": parent.decode("latin-1")})

    def close(self, timeout_s: float) -> None:
        """Send what waits; a collector that doesn't answer in time, or in `CLOSE_S`, doesn't get it."""
        timeout_s = min(timeout_s, CLOSE_S)
        thread = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        thread.start()
        thread.join(timeout_s)
        if thread.is_alive():
            logger.warning("the last traces were not taken in %.1f s; they are lost", timeout_s)
