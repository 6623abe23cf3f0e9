"""What a sender is told and what it leaves, as files of one folder: the plan, the records, the answers it kept.

Files outlive a process that is ended, and a reader never makes a writer wait, as a pipe's would.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import HoneError
from hone.signature import TensorSpec

from ..target import Access, Target, grpc_address
from ..wire import GRPC, Call

RECORD = struct.Struct("<dddIHHI")
RECORDS = np.dtype(
    [("intended", "<f8"), ("started", "<f8"), ("ended", "<f8"), ("call", "<u4"), ("error", "<u2"), ("sender", "<u2"),
     ("size", "<u4")]
)  # fmt: skip
"""A request: times in seconds from the start, which call it was, its error (0: none, else a line of ERRORS counted
from 1), which of several senders sent it, and the bytes of the answer's body."""

NOT_SENT = "not sent: too many in flight"
INTERRUPTED = "no answer: the run was over"
MAX_IN_FLIGHT = 2000
TIMEOUT_S = 30.0
GRACE_S = 2.0
"""So long answers are waited for after a stop."""
TICK_S = 0.2
PAUSE_S = 0.1
"""So long a caller waits who got no connection: it would only ask for another, as fast as it can."""
REMEMBERED = 16_384
"""Bytes of an answer that is remembered, so that the same one again isn't taken apart again."""
_PLAN, _RECORDS, _ERRORS, _KEPT, _SUMMARY = "plan.npz", "records", "errors", "kept", "summary.json"
_FRAME = struct.Struct("<III")


@dataclass(frozen=True)
class Plan:
    """What one sender does.

    Attributes:
        url: of the service: http, https, or of its gRPC: grpc, grpcs.
        requests: whole HTTP requests, or gRPC messages.
        rows: of each request's answer; 0: not known.
        ca: file of certificates; None: those that Python knows.
        wire: protocol that answers are checked by; empty: every answer with status 200 is good.
        tag: of the artifact that has to answer.
        outputs: of the model.
        arrivals: open loop: seconds from the start, in order; None: a closed loop.
        order: which request comes when; taken again from the front when it ends.
        users: closed loop: callers at the start.
        duration_s: closed loop: no request is begun later; 0: until it is told to stop.
        keep_every_s: an answer is kept so often, to be checked; 0: none.
        in_flight: requests at once, at most; what comes beyond is noted as not sent.
        number: of this sender among several.
        metadata: of each gRPC call.
    """

    url: str
    requests: list[bytes]
    rows: np.ndarray
    ca: str | None = None
    wire: str = ""
    tag: str = ""
    outputs: tuple[TensorSpec, ...] = ()
    arrivals: np.ndarray | None = None
    order: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    users: int = 0
    duration_s: float = 0.0
    keep_every_s: float = 0.0
    in_flight: int = MAX_IN_FLIGHT
    number: int = 0
    metadata: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, target: Target, calls: list[Call], wire: str, **load: Any) -> Plan:
        """Return a plan for requests to a model.

        Raises:
            HoneError: a header can't be sent, or the service has no gRPC and the protocol is that.
        """
        headers, grpc = target.access.headers, wire == GRPC
        return cls(
            url=grpc_address(target) if grpc else target.url,
            requests=[call.body if grpc else request_bytes(target.url, call, headers) for call in calls],
            metadata=headers if grpc else {},
            rows=np.array([call.rows for call in calls]),
            ca=str(target.access.ca.resolve()) if target.access.ca else None,
            wire=wire,
            tag=target.tag,
            outputs=target.signature.outputs,
            **load,
        )

    @property
    def access(self) -> Access:
        """How the service is reached; keys are in the requests."""
        return Access(ca=Path(self.ca) if self.ca else None)

    def write(self, folder: Path) -> None:
        """Write it to a folder; raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        words = {
            name: getattr(self, name)
            for name in (
                "url", "ca", "wire", "tag", "users", "duration_s", "keep_every_s", "in_flight", "number", "metadata",
            )
        }  # fmt: skip
        words["outputs"] = [spec.model_dump() for spec in self.outputs]
        arrivals = np.zeros(0) if self.arrivals is None else self.arrivals
        np.savez(
            folder / _PLAN,
            words=np.frombuffer(json.dumps({**words, "open": self.arrivals is not None}).encode(), np.uint8),
            bytes=np.frombuffer(b"".join(self.requests), np.uint8),
            ends=np.cumsum([len(request) for request in self.requests]),
            rows=self.rows, arrivals=arrivals, order=self.order,
        )  # fmt: skip

    @classmethod
    def read(cls, folder: Path) -> Plan:
        with np.load(folder / _PLAN) as file:
            words: dict[str, Any] = json.loads(file["words"].tobytes())
            blob, ends = file["bytes"].tobytes(), file["ends"].tolist()
            arrivals, rows, order = file["arrivals"], file["rows"], file["order"]
        words["outputs"] = tuple(TensorSpec.model_validate(spec) for spec in words["outputs"])
        requests = [blob[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
        return cls(requests=requests, rows=rows, order=order, arrivals=arrivals if words.pop("open") else None, **words)


def request_bytes(url: str, call: Call, headers: dict[str, str]) -> bytes:
    """Return a whole HTTP/1.1 request.

    Raises:
        HoneError: a header's value is none that can be sent.
    """
    from urllib.parse import urlsplit

    place = urlsplit(url)
    fields = {"host": place.netloc.rpartition("@")[2], **call.headers, **headers, "content-length": str(len(call.body))}
    for name, value in fields.items():
        if not value.isascii() or not value.isprintable():
            raise HoneError(f"the header {name} can't be sent: its value is not plain printable text")
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST {place.path.rstrip('/')}{call.path} HTTP/1.1\r\n{head}\r\n".encode() + call.body


class Log:
    """What a sender writes while it runs: records, the words of their errors, answers that it keeps.

    Args:
        folder: of the plan.
    """

    def __init__(self, folder: Path, number: int) -> None:
        self._folder = folder
        self._number = number
        self._records = (folder / _RECORDS).open("ab", buffering=0)
        self._waiting = bytearray()
        self._errors: dict[str, int] = {}

    def add(self, intended: float, started: float, ended: float, call: int, error: str, size: int) -> None:
        code = 0 if not error else self._errors.get(error) or self._new(error)
        self._waiting += RECORD.pack(intended, started, ended, call, code, self._number, size)

    def _new(self, error: str) -> int:
        if len(self._errors) >= 1000:
            error = "other errors"
        if error not in self._errors:
            self._errors[error] = len(self._errors) + 1
            with (self._folder / _ERRORS).open("a") as stream:
                stream.write(json.dumps(error) + "\n")
        return self._errors[error]

    def keep(self, call: int, head: bytes, body: bytes) -> None:
        """Keep an answer, to be compared later."""
        with (self._folder / _KEPT).open("ab") as stream:
            stream.write(_FRAME.pack(call, len(head), len(body)) + head + body)

    def flush(self) -> None:
        """Write what waits; raises OSError."""
        if self._waiting:
            self._records.write(self._waiting)
            self._waiting.clear()

    def close(self, **summary: Any) -> None:
        self.flush()
        self._records.close()
        (self._folder / _SUMMARY).write_text(json.dumps(summary))


class Reader:
    """Reads what a sender wrote, as far as it has come."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read = 0

    def more(self) -> np.ndarray:
        """Return the records that came since the last call: an array of RECORDS."""
        file = self._folder / _RECORDS
        if not file.exists():
            return np.zeros(0, RECORDS)
        with file.open("rb") as stream:
            stream.seek(self._read)
            content = stream.read()
        whole = len(content) // RECORD.size * RECORD.size
        self._read += whole
        return np.frombuffer(content[:whole], RECORDS)

    def errors(self) -> list[str]:
        """Return the words of the errors that records name by their place, from 1."""
        file = self._folder / _ERRORS
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def kept(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield the answers that were kept: which call, the head, the body."""
        file = self._folder / _KEPT
        content, at = (file.read_bytes() if file.exists() else b""), 0
        while at + _FRAME.size <= len(content):
            call, head, body = _FRAME.unpack_from(content, at)
            at += _FRAME.size
            if at + head + body > len(content):
                return
            yield call, content[at : at + head], content[at + head : at + head + body]
            at += head + body

    def summary(self) -> dict[str, Any]:
        """Return what the sender said of itself at its end; empty when it didn't come to one."""
        try:
            found: dict[str, Any] = json.loads((self._folder / _SUMMARY).read_text())
        except (OSError, ValueError):
            return {}
        return found
