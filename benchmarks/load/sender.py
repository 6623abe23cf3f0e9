"""Sends requests from gevent's greenlets, cheaply: the generator shares the machine with the service it measures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import urlsplit

from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError

from .target import Access
from .wire import Call, Expected, Wire

TIMEOUT_S = 30.0

Fire = Callable[..., Any]


class Sender:
    """Connections to one service, kept open.

    Locust's own HTTP clients cost several times as much a request as this one, which they are built on.

    Args:
        url: of the service.
        access: to it.
        wire: of the requests.
        expected: of the answers.
        fire: Locust's event for a finished request.
        connections: at most.
    """

    def __init__(
        self, url: str, access: Access, wire: Wire, expected: Expected, fire: Fire, connections: int = 1
    ) -> None:
        secure = {"ssl_context_factory": access.context} if url.startswith("https://") else {}
        self._http = HTTPClient.from_url(
            url, concurrency=connections, connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S, **secure
        )
        self._prefix = urlsplit(url).path.rstrip("/")
        self._headers = access.headers
        self._wire = wire
        self._expected = expected
        self._fire = fire

    def send(self, call: Call, intended: float | None = None) -> tuple[float, float, str]:
        """Send one request and report it to Locust; return when it started and ended, and what was wrong.

        Args:
            call: the request.
            intended: when it was meant to start, by `time.perf_counter`; None: now.
        """
        started = time.perf_counter()
        answer = b""
        try:
            response = self._http.post(
                self._prefix + call.path, body=call.body, headers={**call.headers, **self._headers}
            )
            answer = bytes(response.read())
            error = self._wire.fault(
                response.status_code, answer, cast(Mapping[str, str], response.info()), self._expected
            )
        except (OSError, HTTPParseError) as failure:
            error = f"no answer: {type(failure).__name__}"
        ended = time.perf_counter()
        self._fire(
            request_type="POST",
            name=call.path,
            response_time=(ended - (started if intended is None else intended)) * 1e3,
            response_length=len(answer),
            exception=RuntimeError(error) if error else None,
            context={},
        )
        return started, ended, error

    def close(self) -> None:
        self._http.close()
