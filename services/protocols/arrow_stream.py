"""What an Arrow IPC stream holds, read from its messages' headers before anything is made of it.

A stream may unpack to any size: compressed buffers, and dictionaries and run-end encoding, whose rows cost no bytes. It
may also be cut between two messages and look whole. Layout: Arrow's columnar format, "IPC Streaming Format", and the
flatbuffers `Message.fbs` and `Schema.fbs`. pyarrow verifies the flatbuffers when it reads the stream afterwards; here a
wrong offset can only raise.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ..http.failures import RequestError
from ..http.responses import Body

CONTINUES = 0xFFFFFFFF
SCHEMA, DICTIONARY, RECORDS = 1, 2, 3
MAX_MESSAGES = 1024
"""Batches and dictionaries of one stream; writers put tens of thousands of rows in each."""

_U16, _I32, _I64 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<q")
_FRAME = struct.Struct("<Ii")


@dataclass(frozen=True)
class Contents:
    """What the headers say.

    Attributes:
        rows: in all batches.
        batches: how many.
        dictionaries: how many, deltas and replacements counted.
    """

    rows: int
    batches: int
    dictionaries: int


def survey(body: Body) -> Contents:
    """Return what a stream holds.

    Raises:
        RequestError: it is no stream, doesn't reach to the body's last byte, or is compressed inside.
    """
    try:
        return _survey(memoryview(body))
    except struct.error:
        raise RequestError("the body is not an Arrow IPC stream: a header points outside it") from None


def _survey(view: memoryview) -> Contents:
    rows, kinds, position = 0, [0, 0, 0, 0], 0
    while True:
        if position + 8 > len(view):
            if not position:
                raise RequestError("the body is not an Arrow IPC stream")
            raise RequestError(
                "the Arrow IPC stream ends early: the end-of-stream marker is missing; close its writer before sending"
            )
        mark, size = _FRAME.unpack_from(view, position)
        position += 8
        if mark != CONTINUES or size < 0:
            raise RequestError("the body is not an Arrow IPC stream")
        if not size:
            break
        kind, count, length = _message(view[position : position + size])
        position += size + length
        rows += count
        kinds[kind] += 1
        if sum(kinds) > MAX_MESSAGES:
            raise RequestError(f"the Arrow IPC stream has more than {MAX_MESSAGES} messages; send larger batches")
    if position != len(view):
        raise RequestError(f"{len(view) - position} bytes behind the end of the Arrow IPC stream")
    return Contents(rows, kinds[RECORDS], kinds[DICTIONARY])


def _message(header: memoryview) -> tuple[int, int, int]:
    """Return a message's kind, rows and bytes of body."""
    message = _follow(header, 0)
    kind = _field(header, message, 1)
    kind = header[kind] if 0 < kind < len(header) else 0
    place, length = _field(header, message, 2), _field(header, message, 3)
    size = _I64.unpack_from(header, length)[0] if length else 0
    if kind not in (SCHEMA, DICTIONARY, RECORDS) or not place or size < 0:
        raise RequestError("the Arrow IPC stream holds a message that is neither schema, dictionary nor batch")
    table = _follow(header, place)
    if kind == SCHEMA:
        endianness = _field(header, table, 0)
        if endianness and _U16.unpack_from(header, endianness)[0]:
            raise RequestError("the Arrow IPC stream is big-endian; send it little-endian")
        return kind, 0, size
    if kind == DICTIONARY:
        data = _field(header, table, 1)
        table = _follow(header, data) if data else table
    if _field(header, table, 3):
        raise RequestError(
            "the Arrow IPC stream has compressed buffers; write it without compression, and compress the whole body "
            "(content-encoding: gzip or zstd) where that helps"
        )
    rows = _field(header, table, 0)
    count = _I64.unpack_from(header, rows)[0] if rows and kind == RECORDS else 0
    if count < 0:
        raise RequestError("the Arrow IPC stream has a batch of less than no rows")
    return kind, count, size


def _follow(view: memoryview, position: int) -> int:
    return _checked(position + _I32.unpack_from(view, position)[0])


def _field(view: memoryview, table: int, index: int) -> int:
    """Return where a table's field is, 0 when it has the default value (flatbuffers, "Internals")."""
    vtable = _checked(table - _I32.unpack_from(view, table)[0])
    slot = 4 + 2 * index
    if slot >= _U16.unpack_from(view, vtable)[0]:
        return 0
    offset = _U16.unpack_from(view, vtable + slot)[0]
    return table + offset if offset else 0


def _checked(position: int) -> int:
    if position < 0:  # struct would count from the end
        raise struct.error("before the start")
    return position
