"""Every error a caller can get, and its status: one table."""

from __future__ import annotations

from hone.errors import SignatureError, shorten


class RequestError(Exception):
    """A request that can't be answered; the message is one line for the caller.

    Attributes:
        status: the HTTP status.
        headers: extra response headers.
    """

    status = 400

    def __init__(self, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.headers = headers


class MethodError(RequestError):
    status = 405


class BodyTooLargeError(RequestError):
    status = 413


class SlowBodyError(RequestError):
    """The caller sends a large body slowly while others wait for the memory that is held for it."""

    status = 408

    def __init__(self) -> None:
        super().__init__(
            "the body came slowly while others waited for the memory that it holds; send it faster, or a smaller one",
            (("connection", "close"),),
        )


class MediaTypeError(RequestError):
    status = 415


class NotFoundError(RequestError):
    """No such model, version or path."""

    status = 404


class OverloadedError(RequestError):
    """The caller should try again, after `retry_after_s` seconds."""

    status = 503

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message, (("retry-after", str(max(1, retry_after_s))),))


class DeadlineError(OverloadedError):
    """The request's deadline can't be met, so it isn't computed."""


class StoppingError(OverloadedError):
    """The service or the model is on its way out."""

    def __init__(self) -> None:
        super().__init__("the service is stopping")


class InferenceError(Exception):
    """The runtime failed on a valid request; the log has the details."""


MAX_MESSAGE = 400
"""Characters of an answer's error, and of what the log says about it."""

UNEXPECTED = "the model failed on this request; the server's log says why"


def status_of(error: BaseException) -> tuple[int, str, tuple[tuple[str, str], ...]]:
    """Return (status, message, headers) of an error."""
    if isinstance(error, RequestError):
        return error.status, _printable(error), error.headers
    if isinstance(error, SignatureError):
        return 400, _printable(error), ()
    return 500, UNEXPECTED, ()


def _printable(error: BaseException) -> str:
    """Return the message on one line and of bounded length: names that callers made up are part of it."""
    text = shorten(str(error), MAX_MESSAGE)
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)
