"""Reading bodies: to their last byte, unpacked, and never more of them than a limit allows."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from hone.errors import shorten

from .failures import BodyTooLargeError, MediaTypeError, RequestError
from .responses import Body, ClientGoneError, Head, Receive

MAX_ZSTD_BLOCKS = 1024
"""A frame may have so many blocks, and one more for each KiB of the largest body; they hold up to 128 KiB each."""


async def read_body(head: Head, receive: Receive, limit: int) -> Body:
    """Return a small request's body, unpacked; one over the limit is refused as soon as that shows.

    Large ones are read by `services.http.bodies`. A body that arrives in one piece is not copied.

    Raises:
        BodyTooLargeError: the body, or what it decompresses to, is over the limit.
        MediaTypeError: an unknown content encoding.
        RequestError: a broken compressed body, or a content length that is no number.
        ClientGoneError: the caller went away.
    """
    check_length(head, limit)
    message = await receive()
    body: Body = message.get("body", b"")
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    if message.get("more_body"):
        body = await read_rest(body, receive, limit)
    if len(body) > limit:
        raise too_large(limit)
    opener = opener_of(head.get(b"content-encoding", b"identity").strip().lower())
    return body if opener is None else opener(body, limit)


LIMIT = "HONE_MAX_BODY_MB"


def check_length(head: Head, limit: int, setting: str = LIMIT) -> int | None:
    """Return the length of the body that the head declares; raises BodyTooLargeError when it is over."""
    declared = head.get(b"content-length")
    if declared is None or not declared.isdigit():
        return None
    if int(declared) > limit:
        raise too_large(limit, setting=setting)
    return int(declared)


async def read_rest(first: Body, receive: Receive, limit: int) -> bytearray:
    gathered = bytearray(first)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        gathered += message.get("body", b"")
        if len(gathered) > limit:
            raise too_large(limit)
        if not message.get("more_body"):
            return gathered


def opener_of(encoding: bytes) -> Callable[[Body, int], Body] | None:
    """Return what unpacks a body, up to a limit of bytes; None where it isn't packed.

    Raises:
        MediaTypeError: an unknown encoding.
    """
    if encoding == b"identity":
        return None
    openers = {b"gzip": _gunzip, b"x-gzip": _gunzip, b"zstd": _unzstd}
    opener = openers.get(encoding)
    if opener is None:
        raise MediaTypeError(
            f"content encoding '{shorten(encoding.decode('latin-1'))}' is not supported; send gzip, zstd or none",
            (("accept-encoding", "gzip, zstd"),),
        )
    return opener


def _gunzip(body: Body, limit: int) -> bytes:
    machine = zlib.decompressobj(wbits=31)
    try:
        content = machine.decompress(body, limit + 1)
    except zlib.error as error:
        raise RequestError(f"the gzip body is broken: {error}") from None
    if len(content) > limit:
        raise too_large(limit, "decompressed ")
    if not machine.eof:
        raise RequestError("the gzip body ends early")
    if machine.unused_data:
        raise RequestError("the gzip body has bytes behind its end")
    return content


def _unzstd(body: Body, limit: int) -> bytes:
    try:
        import zstandard
    except ImportError:
        raise MediaTypeError("this server has no zstd; send gzip, or pip install 'hone[ops]' there") from None
    machine = zstandard.ZstdDecompressor(max_window_size=max(1 << 23, 1 << limit.bit_length()))
    try:
        size = zstandard.frame_content_size(body)
        if size > limit:
            raise too_large(limit, "decompressed ")
        _check_zstd_frame(body, limit)
        with machine.stream_reader(body) as reader:
            content = reader.read((limit if size < 0 else size) + 1)
    except zstandard.ZstdError as error:
        raise RequestError(f"the zstd body is broken: {error}") from None
    if len(content) > limit:
        raise too_large(limit, "decompressed ")
    return content


def _check_zstd_frame(body: Body, limit: int) -> None:
    """Raise RequestError unless a body is exactly one zstd frame, by the lengths of its blocks (RFC 8878, 3.1.1).

    The library gives what a cut frame holds as if it were whole, and passes over what comes behind a frame. Frames
    one behind the other are refused, like gzip members: a client that sends one body sends one frame.
    """
    import zstandard

    has_checksum = zstandard.get_frame_parameters(body).has_checksum
    position = zstandard.frame_header_size(body)
    for _ in range(MAX_ZSTD_BLOCKS + limit // 1024):
        header = int.from_bytes(body[position : position + 3], "little")
        last, repeated, size = header & 1, (header >> 1 & 3) == 1, header >> 3
        position += 3 + (1 if repeated else size)
        if last or position > len(body):
            break
    else:
        raise RequestError("the zstd body is cut into too many blocks")
    position += 4 if has_checksum else 0
    if position > len(body):
        raise RequestError("the zstd body ends early")
    if position < len(body):
        raise RequestError("the zstd body has bytes behind its end; send one frame")


def too_large(limit: int, which: str = "", setting: str = LIMIT) -> BodyTooLargeError:
    # The rest of the body is not read, so the connection can't be used again.
    return BodyTooLargeError(
        f"the {which}body is over the limit of {limit / 1e6:g} MB; send fewer rows, or raise {setting}",
        (("connection", "close"),),
    )
