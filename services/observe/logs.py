"""Logs: BentoML's handlers as text, or one JSON object a line; nothing personal in either.

Addresses, caller ids and inputs are not logged anywhere in the serving path; what libraries write is passed through
`redact`, which masks IP addresses, e-mail addresses, tokens and passwords in URLs.
"""

from __future__ import annotations

import logging
import re
import sys
import warnings
from datetime import UTC, datetime
from typing import Any

import orjson

_PATTERNS = (
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"), "***"),
    (re.compile(r"(?i)\b(bearer|x-api-key:|authorization:(?!\s*bearer))\s*[^\s,]+"), r"\1 ***"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*"), "***"),
    (re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.]+\b"), "***@***"),
    (re.compile(r"\b(?!127\.|0\.0\.0\.0)(?:\d{1,3}\.){3}\d{1,3}\b(?!\.\d)"), "*.*.*.*"),
)


MAX_LINE = 1000
"""Characters of a message."""


def redact(text: str) -> str:
    """Mask what could name a person or open a door; loopback addresses stay."""
    for pattern, mask in _PATTERNS:
        text = pattern.sub(mask, text)
    return text


def one_line(text: str) -> str:
    """Return a message that stays one line of bounded length: what callers made up is part of some.

    A line break in it would begin a line of the log that nobody wrote.
    """
    if len(text) > MAX_LINE:
        text = text[: MAX_LINE - 1] + "…"
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


class _Redacting(logging.Filter):
    """Makes a record's message one line without secrets before any handler writes it; its traceback is set apart."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(one_line(record.getMessage().rstrip())), ()
        if record.exc_info and not record.exc_text:
            lines = redact(_EXCEPTIONS.formatException(record.exc_info)).splitlines()
            record.exc_text = "\n".join(f"  | {line[:MAX_LINE]}" for line in lines)
        return True


_EXCEPTIONS = logging.Formatter()


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields that came with the record, and an exception."""

    def format(self, record: logging.LogRecord) -> str:
        content: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            content["exception"] = redact(self.formatException(record.exc_info))
        return orjson.dumps(content, default=str).decode()


class QuietStreamHandler(logging.StreamHandler[Any]):
    """Writes to a stream; when that fails (disk full, closed pipe) the line is lost and the service goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name of logging's method
        return


def set_up(log_format: str) -> None:
    """Send our loggers, and with JSON the servers' around us too, to standard error.

    Args:
        log_format: `text` uses the handlers that BentoML set up for its own loggers; `json` ours.
    """
    ours, theirs = logging.getLogger("hone"), logging.getLogger("bentoml")
    ours.setLevel(logging.INFO)
    if log_format == "text":
        ours.handlers, ours.propagate = theirs.handlers, theirs.propagate
    else:
        handler = QuietStreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        for logger in (ours, theirs, logging.getLogger("uvicorn"), logging.getLogger("uvicorn.error")):
            logger.handlers, logger.propagate = [handler], False
    # uvicorn makes up an access line for each request as soon as a handler could be reached; ours is Edge.log.
    uvicorns = logging.getLogger("uvicorn.access")
    uvicorns.handlers, uvicorns.propagate = [], False
    logging.raiseExceptions = False
    # A caller's NaN, which `tensors.all_finite` finds by this very product, is not the operator's business.
    warnings.filterwarnings("ignore", "invalid value encountered in dot")
    for logger in (ours, theirs, logging.getLogger("uvicorn.error")):
        for writer in logger.handlers:
            if not any(isinstance(known, _Redacting) for known in writer.filters):
                writer.addFilter(_Redacting())
