"""The errors that a caller can get, and their statuses: 401, 403 and 429 of keys are in services/access/callers.py."""

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


class AdminOffError(RequestError):
    """Loading and unloading models is not open to this caller, or to anybody."""

    status = 403


class JobsOffError(RequestError):
    """This service takes no jobs."""

    status = 403

    def __init__(self) -> None:
        super().__init__("this service takes no jobs: it was started without HONE_JOBS_DIR")


class NotFoundError(RequestError):
    """No such model, version or path."""

    status = 404


class MethodError(RequestError):
    """The path takes another method."""

    status = 405


class SlowBodyError(RequestError):
    """The caller sends a large body slowly while others wait for the memory that is held for it."""

    status = 408

    def __init__(self) -> None:
        super().__init__(
            "the body came slowly while others waited for the memory that it holds; send it faster, or a smaller one",
            (("connection", "close"),),
        )


class BodyTooLargeError(RequestError):
    """A body, or what it stands for, is more than one request may bring."""

    status = 413


class MediaTypeError(RequestError):
    """A content type or encoding that isn't read here, or not for this model."""

    status = 415


class UnusableModelError(RequestError):
    """A stored model that can't be served; what served before still does."""

    status = 422


class UnrecordedError(RequestError):
    """An action that the audit log can't hold isn't done."""

    status = 503


class MistrustedError(RequestError):
    """No variant of a model answers here as it did in its proof."""

    status = 503

    def __init__(self, name: str) -> None:
        super().__init__(f"model '{name}' gives other answers on this host than in its proof, so it is not served here")


class OverloadedError(RequestError):
    """The caller should try again, after `retry_after_s` seconds.

    Attributes:
        reason: why it was shed, in the metrics.
        is_demand: more replicas would have answered it, so it counts for the autoscaler.
    """

    status = 503
    reason = "queue_full"
    is_demand = True

    def __init__(self, message: str, retry_after_s: int = 1) -> None:
        super().__init__(message, (("retry-after", str(max(1, retry_after_s))),))


class DeadlineError(OverloadedError):
    """The request's deadline can't be met, so it isn't computed.

    Args:
        hopeless: not even an idle service could meet it.
    """

    reason = "deadline"

    def __init__(self, message: str, retry_after_s: int = 1, *, hopeless: bool = False) -> None:
        super().__init__(message, retry_after_s)
        self.is_demand = not hopeless


class StoppingError(OverloadedError):
    """The service or the model is on its way out."""

    reason = "stopping"
    is_demand = False

    def __init__(self) -> None:
        super().__init__("the service is stopping")


class RestartingModelError(OverloadedError):
    """The model's process has ended, and is started again."""

    reason = "restarting"
    is_demand = False

    def __init__(self) -> None:
        super().__init__("the model's process is being started again")


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


def is_unexpected(error: BaseException) -> bool:
    """Return whether nobody has told the log yet what went wrong: neither the caller's doing nor the runtime's."""
    return not isinstance(error, RequestError | SignatureError | InferenceError)


def _printable(error: BaseException) -> str:
    """Return the message on one line and of bounded length: names that callers made up are part of it."""
    text = shorten(str(error), MAX_MESSAGE)
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)
