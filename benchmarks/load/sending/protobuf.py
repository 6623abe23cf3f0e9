"""As much of protobuf's encoding as an inference takes (protobuf.dev, "Encoding"), without the server's code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def varint(value: int) -> bytes:
    """Return a number from 0 up."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes | str | Iterable[int]) -> bytes:
    """Return a field of bytes, a text, an inner message, or a list of numbers from 0 up."""
    if isinstance(content, str):
        content = content.encode()
    elif not isinstance(content, bytes):
        content = b"".join(map(varint, content))
    return varint(number << 3 | 2) + varint(len(content)) + content


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the number and the value of each field: a number, or bytes.

    Raises:
        ValueError: this is no message.
    """
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        size, at = _varint(message, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, -1), at)
        if size < 0 or at + size > len(message):
            raise ValueError("no protobuf message")
        yield tag >> 3, message[at : at + size]
        at += size


def numbers(value: int | bytes) -> list[int]:
    """Return the numbers of a list's field: one, or several packed together."""
    if isinstance(value, int):
        return [value]
    found, at = [], 0
    while at < len(value):
        number, at = _varint(value, at)
        found.append(number)
    return found


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("no protobuf message")
