"""Fuzz the decoders in a process that is limited in memory: `python -m tests.fuzz.run CASES [PROTOCOL ...] [SEED]`.

CASES are of all protocols together. Any exception but a refusal, a case over the time limit, memory over the bound, a
valid request that is refused, and tensors that another reading doesn't give end it with the case's seed, which brings
the same case again. Below 20,000 the cases are the same in each run, from there on new ones.
"""

from __future__ import annotations

import gzip
import json
import resource
import secrets
import sys
import time
import warnings
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import zstandard
from tritonclient.grpc import service_pb2

from hone.errors import SignatureError
from hone.services.grpc import v2 as v2_messages
from hone.services.http import reading
from hone.services.http.failures import RequestError, status_of
from hone.services.http.limits import Limits
from hone.services.protocols.arrow import Arrow
from hone.services.protocols.base import Protocol
from hone.services.protocols.predict import PredictJson
from hone.services.protocols.raw import Npy, RawBytes
from hone.services.protocols.v1 import V1
from hone.services.protocols.v2 import V2
from tests.fuzz import mutate, oracle
from tests.fuzz.valid import BUILDERS, SIGNATURES, Tensors, Valid

LIMITS = Limits(memory=20_000_000, rows=1000, row_values=10_000)
LONGEST_S = 2.0
"""Processor time of one case; they take microseconds to milliseconds."""

MOST_BYTES = 150_000_000
"""Growth of the resident memory within a batch of cases: the limit of one, the test's own, and room."""

HARD_BYTES = 600_000_000
"""Over what the process had after its imports, an allocation fails."""

BATCH = 200
KINDS: dict[str, type[Protocol]] = {
    "predict": PredictJson, "v1": V1, "v2": V2, "v2_binary": V2, "raw": RawBytes, "npy": Npy, "arrow": Arrow,
}  # fmt: skip
PACKED = ("gzip", "zstd")
ALL = (*BUILDERS, *PACKED)


@cache
def _decoder(protocol: str, signature: str) -> Protocol:
    return KINDS[protocol](SIGNATURES[signature], "m", "v", LIMITS)


def decode(protocol: str, request: Valid) -> Tensors:
    if protocol == "grpc":
        message = v2_messages.parse(request.body, service_pb2.ModelInferRequest, LIMITS)
        v2_messages.wanted(message.outputs, request.signature)
        return v2_messages.decode(message, request.signature, LIMITS)
    name = next(name for name, signature in SIGNATURES.items() if signature is request.signature)
    return _decoder(protocol, name).decode(request.head, request.body).inputs


class Watch:
    """Time of a case, and memory of a batch of them."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.worst_s = 0.0
        self.worst_bytes = 0
        self._count = 0
        self._base = 0

    def __enter__(self) -> None:
        if not self._count % BATCH:
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            self._base = _status("VmRSS")
        self._count += 1
        self._started = time.process_time()

    def __exit__(self, kind: object, *_: object) -> None:
        took = time.process_time() - self._started
        grown = _status("VmHWM") - self._base
        self.worst_s, self.worst_bytes = max(took, self.worst_s), max(grown, self.worst_bytes)
        if kind is None:
            assert took < LONGEST_S, f"{took:.1f} s"
            assert grown < MOST_BYTES, f"{grown / 1e6:.0f} MB"


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise AssertionError(field)


def one(protocol: str, request: Valid, whole: bool, watch: Watch) -> None:
    """Check one case."""
    try:
        with watch:
            found = decode(protocol, request)
    except (RequestError, SignatureError) as error:
        assert not whole, f"valid, but refused: {error}"
        status, message, _ = status_of(error)
        assert status in (400, 413, 415) and message and message.isprintable() and len(message) <= 400
        watch.seen[str(status)] += 1
        return
    watch.seen["accepted"] += 1
    oracle.agrees(protocol, request, found)
    if whole:
        for name, array in request.tensors.items():
            assert (found[name] == array).all() and found[name].dtype == array.dtype


def _packed(pick: Random, encoding: str) -> tuple[bytes, bytes, bool]:
    """Return a compressed body, what it holds, and whether it is whole."""
    content = pick.randbytes(pick.randint(0, 300)) * pick.choice([1, 1, 1000])
    if encoding == "gzip":
        packed = gzip.compress(content, pick.randint(0, 9))
    else:
        maker = zstandard.ZstdCompressor(
            level=pick.randint(1, 5),
            write_checksum=pick.random() < 0.5,
            write_content_size=pick.random() < 0.5,
        )
        middle = pick.randint(0, len(content))
        stream = maker.compressobj()
        packed = stream.compress(content[:middle]) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        packed += stream.compress(content[middle:]) + stream.flush()
        if pick.random() < 0.3:
            packed = maker.compress(content)
    body = mutate.packed(pick, packed)
    return body, content, body == packed


def one_packed(encoding: str, body: bytes, content: bytes, whole: bool, watch: Watch) -> None:
    opener = {"gzip": reading._gunzip, "zstd": reading._unzstd}[encoding]
    try:
        with watch:
            found = opener(body, 200_000)
    except RequestError as error:
        assert not whole or len(content) > 200_000, f"valid, but refused: {error}"
        watch.seen[str(error.status)] += 1
        return
    watch.seen["accepted"] += 1
    if encoding == "gzip":
        assert found == gzip.decompress(body)
    else:
        other = zstandard.ZstdDecompressor().decompressobj()
        assert other.decompress(body) == found and other.eof and not other.unused_data
    assert not whole or found == content


def case(protocol: str, seed: str, watch: Watch) -> None:
    """Try the case that a seed stands for."""
    pick = Random(f"{protocol} {seed}")
    if protocol in PACKED:
        one_packed(protocol, *_packed(pick, protocol), watch)
    else:
        one(protocol, *mutate.requests(pick, protocol), watch)


def fuzz(protocol: str, cases: int, run: str) -> Watch:
    """Try `cases` cases of a protocol; what goes wrong ends the process with the seed of its case."""
    watch = Watch()
    for index in range(cases):
        try:
            case(protocol, f"{run}-{index}", watch)
        except BaseException:
            sys.stderr.write(f"again: python -m tests.fuzz.run 1 {protocol} {run}-{index}\n")
            raise
    return watch


def main(arguments: list[str]) -> None:
    cases = int(arguments[0])
    protocols = [name for name in arguments[1:] if name in ALL] or list(ALL)
    seeds = [name for name in arguments[1:] if name not in ALL]
    warnings.simplefilter("ignore")
    for protocol in protocols:
        fuzz(protocol, 20, "warm")  # imports what is imported when it is used
    size = _status("VmData") + HARD_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
    for seed in seeds:
        case(protocols[0], seed, Watch())
    run = "same" if cases < 20_000 else secrets.token_hex(4)
    for protocol in protocols:
        started = time.monotonic()
        watch = fuzz(protocol, cases // len(protocols), run)
        line = {
            "protocol": protocol,
            "cases": sum(watch.seen.values()),
            "seen": dict(watch.seen),
            "worst_ms": round(watch.worst_s * 1e3, 1),
            "worst_mb": round(watch.worst_bytes / 1e6, 1),
            "seconds": round(time.monotonic() - started, 1),
        }
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
