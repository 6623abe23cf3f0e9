"""`POST /models/NAME/feedback`: labels and business figures, by the request ids of the answers."""

from __future__ import annotations

import asyncio
import logging

import orjson

from hone.errors import one_line
from hone.traffic.feedback import FeedbackError, parse_feedback

from ...http.failures import NotFoundError, OverloadedError, RequestError, is_unexpected
from ...http.reading import read_body
from ...http.responses import ClientGoneError, Head, Receive, Scope, Send, require_method, respond_error, respond_json
from ..edge import REQUEST_ID, Edge

logger = logging.getLogger("hone.serving")

PATH = "/models/{name}/feedback"
MOST_BYTES = 4_000_000
"""Of a call: ten thousand entries with small labels; more go in several."""


class FeedbackEndpoint:
    """Takes feedback on the answers of one model, whatever version gave them.

    Args:
        name: of the model.
        edge: of the worker.
    """

    def __init__(self, name: str, edge: Edge) -> None:
        self._name = name
        self._edge = edge
        self._limit = min(MOST_BYTES, edge.settings.max_body_bytes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = dict(scope["headers"])
        fields = [(REQUEST_ID, self._edge.request_id(head))]
        try:
            taken = await self._take(scope, receive, head)
        except ClientGoneError:
            return
        except Exception as error:
            if is_unexpected(error):
                logger.error("feedback on %s failed", self._name, exc_info=error)
            await respond_error(send, error, fields)
            return
        await respond_json(send, 200, {"accepted": taken}, fields)

    async def _take(self, scope: Scope, receive: Receive, head: Head) -> int:
        await self._edge.admit(head, "feedback", self._name)
        require_method(scope, "POST")
        collector = self._edge.collector
        if collector is None:
            raise NotFoundError("feedback is off; set HONE_FEEDBACK_DIR, the folder that it is kept in")
        body = await read_body(head, receive, self._limit)
        try:
            entries = await asyncio.to_thread(lambda: parse_feedback(orjson.loads(body)))
        except orjson.JSONDecodeError as error:
            raise RequestError(f"the body is not JSON: {str(error).splitlines()[0]}") from None
        except FeedbackError as error:
            raise RequestError(str(error)) from None
        try:
            await asyncio.to_thread(collector.take, self._name, entries)
        except OSError as error:
            logger.error("feedback can't be written: %s", one_line(error))
            raise OverloadedError("feedback can't be written; send it again later") from None
        return len(entries)
