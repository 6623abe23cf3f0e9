"""Messages between Hone and a process apart: a line of JSON, and behind it the bytes of tensors.

A message is 8 bytes with the length of its JSON, that JSON, and the tensors' bytes one after the other, as
`tensors` in the JSON tells them. Nothing is pickled.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import numpy as np

LENGTH = struct.Struct("<Q")
LONGEST = 1_000_000
"""Bytes of a message's JSON: more is no message."""
TEXT = "string"


class WireError(Exception):
    """What came is no message."""


class Link(Protocol):
    """What bytes go over."""

    def send(self, data: memoryview) -> None:
        """Send all of it."""

    def receive(self, into: memoryview) -> None:
        """Fill it; raises EOFError when the other side is gone."""


def send(link: Link, message: Mapping[str, Any], tensors: Mapping[str, np.ndarray] | None = None) -> None:
    """Send a message, with tensors if there are any: text as objects, other dtypes as they are."""
    described, parts = [], []
    for name, array in (tensors or {}).items():
        dtype, content = _packed(array)
        described.append([name, dtype, array.shape, content.nbytes])
        parts.append(content)
    head = json.dumps({**message, "tensors": described}).encode()
    small: list[bytes | memoryview] = [LENGTH.pack(len(head)), head]
    for part in parts:
        if part.nbytes > LONGEST:  # not copied
            link.send(memoryview(b"".join(small)))
            link.send(part)
            small = []
        else:
            small.append(part)
    if small:
        link.send(memoryview(b"".join(small)))


def receive(link: Link, most: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the next message and its tensors, which nobody else holds.

    Args:
        link: to the other side.
        most: bytes of its tensors.

    Raises:
        EOFError: the other side is gone.
        WireError: no message came, or a larger one.
    """
    length = LENGTH.unpack(_read(link, LENGTH.size))[0]
    if length > LONGEST:
        raise WireError("it sent something that is no answer")
    try:
        message = json.loads(bytes(_read(link, length)))
        described = [_described(*one) for one in message.pop("tensors")]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise WireError("it sent something that is no answer") from None
    if sum(size for *_, size in described) > most:
        raise WireError(f"it sent more than {most / 1e6:g} MB")
    return message, {name: _unpacked(dtype, shape, _read(link, size)) for name, dtype, shape, size in described}


def size_of(arrays: Iterator[np.ndarray]) -> int:
    """Return the bytes that tensors take in a message, about those of their text."""
    return sum(_packed(array)[1].nbytes if array.dtype == object else array.nbytes for array in arrays)


def _read(link: Link, size: int) -> bytearray:
    content = bytearray(size)
    if size:
        link.receive(memoryview(content))
    return content


def _packed(array: np.ndarray) -> tuple[str, memoryview]:
    if array.dtype != object:
        if not array.nbytes:
            return array.dtype.str, memoryview(b"")
        return array.dtype.str, np.ascontiguousarray(array).data.cast("B")
    words = [str(word).encode("utf-8", "surrogatepass") for word in array.ravel().tolist()]
    ends = np.cumsum([len(word) for word in words], dtype="<u8").tobytes()
    return TEXT, memoryview(ends + b"".join(words))


def _described(name: str, dtype: str, shape: list[int], size: int) -> tuple[str, str, tuple[int, ...], int]:
    """Return what a message says of a tensor; raises ValueError or TypeError where it can't be so."""
    sizes = tuple(int(axis) for axis in shape)
    kind = None if dtype == TEXT else np.dtype(dtype)
    if kind is not None and (kind.kind not in "biuf" or math.prod(sizes) * kind.itemsize != size):
        raise ValueError
    if min((*sizes, size), default=0) < 0 or (kind is None and size < 8 * math.prod(sizes)):
        raise ValueError
    return str(name), dtype, sizes, int(size)


def _unpacked(dtype: str, shape: tuple[int, ...], content: bytearray) -> np.ndarray:
    if dtype != TEXT:
        return np.frombuffer(content, dtype).reshape(shape) if content else np.empty(shape, dtype)
    count = math.prod(shape)
    ends = [0, *np.frombuffer(content, "<u8", count).tolist()]
    text = memoryview(content)[8 * count :]
    words = np.empty(count, dtype=object)
    try:
        for index in range(count):
            words[index] = str(text[ends[index] : ends[index + 1]], "utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise WireError("it sent text that is no UTF-8") from None
    return words.reshape(shape)
