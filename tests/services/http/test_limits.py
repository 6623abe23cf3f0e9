"""What one request may ask for, and that reading it stays within that."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import orjson
import pyarrow as pa
import pytest
import zstandard

from hone.errors import SignatureError, did_you_mean, shorten
from hone.services.grpc.v2 import decode, parse
from hone.services.http.failures import BodyTooLargeError, RequestError, status_of
from hone.services.http.limits import Limits
from hone.services.http.reading import _unzstd
from hone.services.protocols.arrow import Arrow
from hone.services.protocols.json_tensors import parse_request, read_json
from hone.services.protocols.raw import Npy, RawBytes
from hone.services.settings import Settings
from hone.signature import Signature, TensorSpec
from tests.fuzz import valid
from tests.fuzz.valid import BUILDERS, SIGNATURES
from tests.servers import ROOT

FLOATS = SIGNATURES["float"]
WIDE = Signature(inputs=(TensorSpec(name="x", shape=("batch", 64)),))


@pytest.mark.parametrize("protocol", list(BUILDERS))
def test_valid_requests_of_every_kind_are_understood(protocol: str) -> None:
    from tests.fuzz.run import decode as read

    build, names = BUILDERS[protocol]
    for name in names:
        values = valid.tensors(SIGNATURES[name], rows=3, length=2, seed=1)
        found = read(protocol, build(SIGNATURES[name], values))
        for key, array in values.items():
            np.testing.assert_array_equal(found[key], array)
            assert found[key].dtype == array.dtype


@pytest.mark.parametrize("protocol", list(BUILDERS))
def test_a_body_that_is_not_complete_is_refused_wherever_it_is_cut(protocol: str) -> None:
    from tests.fuzz.run import decode as read

    build, names = BUILDERS[protocol]
    for name in names:
        whole = build(SIGNATURES[name], valid.tensors(SIGNATURES[name], rows=2, length=2, seed=3))
        for end in range(len(whole.body)):
            with pytest.raises((RequestError, SignatureError)):
                read(protocol, valid.Valid(whole.signature, {}, whole.body[:end], whole.head))
        with pytest.raises((RequestError, SignatureError)):
            read(protocol, valid.Valid(whole.signature, {}, whole.body + b"\xff", whole.head))


def test_arrow_batches_that_are_missing_are_noticed() -> None:
    values = valid.tensors(FLOATS, rows=9, length=1, seed=0)
    body = valid.arrow(FLOATS, values, batches=3).body
    protocol = Arrow(FLOATS, "m", "v")
    assert len(protocol.decode({}, body).inputs["x"]) == 9
    cut = body[: body.rindex(b"\xff\xff\xff\xff", 0, len(body) - 8)]  # the last batch and the marker are gone
    assert pa.ipc.open_stream(cut).read_all().num_rows == 6  # the library alone would take it
    with pytest.raises(RequestError, match="end-of-stream marker is missing"):
        protocol.decode({}, cut)
    with pytest.raises(RequestError, match="end-of-stream marker is missing"):
        protocol.decode({}, body[:-8])


@pytest.mark.parametrize("options", [{}, {"write_content_size": False}, {"write_checksum": True}])
def test_zstd_is_one_whole_frame_or_nothing(options: dict[str, bool]) -> None:
    content = np.random.default_rng(0).bytes(300_000) + bytes(300_000)
    stream = zstandard.ZstdCompressor(**options).compressobj()
    body = stream.compress(content) + stream.flush()
    assert _unzstd(body, 1_000_000) == content
    for end in (1, 5, 100, len(body) // 2, len(body) - 200, len(body) - 1):
        with pytest.raises(RequestError, match=r"ends early|broken"):
            _unzstd(body[:end], 1_000_000)
    for tail in (b"\0", body, zstandard.compress(b"")):
        with pytest.raises(RequestError, match="bytes behind its end"):
            _unzstd(body + tail, 1_000_000)
    with pytest.raises(BodyTooLargeError):
        _unzstd(body, 100_000)
    with pytest.raises(RequestError, match="too many blocks"):
        _unzstd(body[:4] + b"\0\x60" + bytes(3) * 200_000 + b"\1\0\0", 100_000)


BOMBS = {
    "lists": b"[" + b"[]," * 5_000_000 + b"1]",
    "objects": b"[" + b'{"":0},' * 2_200_000 + b"1]",
    "one letter": b"[" + b'"a",' * 4_000_000 + b"1]",
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_json_that_would_take_more_memory_than_it_may_is_refused_unparsed(name: str) -> None:
    limits = Limits(memory=200_000_000)
    with pytest.raises(BodyTooLargeError, match=r"would take about .* MB of memory, 200 MB are allowed"):
        read_json(BOMBS[name], limits)


@pytest.mark.parametrize("text", [b"0.12345678,", b"0.5,", b"0,", b"12,"])
def test_the_largest_json_of_numbers_passes(text: bytes) -> None:
    limits = Limits.of(Settings())
    count = (16_000_000 - 1000) // len(text) // 64 * 64
    rows = b"],[".join([(text * 64)[:-1]] * (count // 64 - count // 64 // 20))
    body = b'{"inputs": {"x": [[' + rows + b"]]}}"
    assert len(body) > 14_000_000
    try:
        found = parse_request(body, WIDE, limits)["x"]
    except BodyTooLargeError as error:
        assert "rows in one request" in str(error) and len(body) // len(text) // 64 > limits.rows
        return
    assert found.shape[1] == 64


def test_the_largest_binary_body_passes() -> None:
    rows = 16_000_000 // 256
    body = np.ones((rows, 64), np.float32).tobytes()
    assert RawBytes(WIDE, "m", "v").decode({}, body).inputs["x"].shape == (rows, 64)


MEMORY = """
import orjson, resource, sys, time
from pathlib import Path
from tests.services.http.test_limits import *
texts = {"one long": ["a" * 2_000_000] + [""] * 500, "numbers and one": [1.5] * 500 + ["a" * 2_000_000]}
body = orjson.dumps({"inputs": {"x": [texts[sys.argv[1]]]}})
Path("/proc/self/clear_refs").write_text("5")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def peak():
    return next(int(l.split()[1]) for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmHWM"))
base = peak()
try:
    parse_request(body, FLOATS)
except SignatureError as error:
    print(error, (peak() - base) // 1000)
"""


@pytest.mark.parametrize("kind", ["one long", "numbers and one"])
def test_strings_for_a_model_of_numbers_take_no_more_than_their_own_length(kind: str) -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY, kind], capture_output=True, text=True, cwd=ROOT)
    words, megabytes = done.stdout.rsplit(" ", 1)
    assert "strings" in words or "mixes types" in words, done.stderr
    assert int(megabytes) < 100


@pytest.mark.parametrize(
    "shape",
    [[0, 2**40 - 1, 2**40 - 1], [1] * 65, [0, 10**30], [0, int("1" * 4000)], [-1, 4], [2, -2, -1], [2**62, 2**62]],
)
def test_a_shape_that_no_tensor_can_have_is_refused_in_every_protocol(shape: list[int]) -> None:
    from tritonclient.grpc import service_pb2

    from hone.services.protocols.v2 import V2

    spec = FLOATS.inputs[0]
    with pytest.raises(SignatureError, match=r"axes|not possible"):
        Limits().count(spec, shape)
    entry = {"name": "x", "datatype": "FP32", "shape": shape, "data": []}
    calls = [lambda: V2(FLOATS, "m", "v").decode({}, repr({"inputs": [entry]}).replace("'", '"').encode())]
    if all(size >= 0 for size in shape):
        head = {b"x-shape": ",".join(map(str, shape)).encode()}
        calls.append(lambda: RawBytes(FLOATS, "m", "v").decode(head, b""))
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {tuple(shape)}, }}".encode()[:4096]
        npy = b"\x93NUMPY\x02\0" + len(header).to_bytes(4, "little") + header
        calls.append(lambda: Npy(FLOATS, "m", "v").decode({}, npy))
    if all(abs(size) < 2**63 for size in shape):
        message = service_pb2.ModelInferRequest(raw_input_contents=[b""])
        message.inputs.add(name="x", datatype="FP32", shape=shape)
        calls.append(lambda: decode(message, FLOATS))
    for call in calls:
        with pytest.raises((RequestError, SignatureError)) as caught:
            call()
        status, text, _ = status_of(caught.value)
        assert status == 400 and len(text) <= 400


def test_data_nested_too_deeply_is_refused() -> None:
    nested = "[" * 70 + "1" + "]" * 70
    with pytest.raises(SignatureError, match="nested too deeply"):
        parse_request(f'{{"inputs": {{"x": {nested}}}}}'.encode(), FLOATS)


def test_rows_of_one_request_are_bounded_in_every_protocol() -> None:
    from tests.fuzz.run import KINDS

    limits = Limits(rows=10)
    for protocol, kind in KINDS.items():
        build = BUILDERS[protocol][0]
        for rows in (10, 11):
            request = build(FLOATS, valid.tensors(FLOATS, rows, 1, 0))
            decoder = kind(FLOATS, "m", "v", limits)
            if rows == 10:
                assert len(decoder.decode(request.head, request.body).inputs["x"]) == 10
                continue
            with pytest.raises(BodyTooLargeError, match="11 rows in one request, 10 are allowed"):
                decoder.decode(request.head, request.body)


def test_rows_that_are_too_long_are_refused() -> None:
    text = SIGNATURES["text"]
    long = valid.predict(text, valid.tensors(text, 2, 50, 0))
    assert parse_request(long.body, text, Limits(row_values=50))["ids"].shape == (2, 50)
    with pytest.raises(BodyTooLargeError, match="a row of input 'ids' has 50 values along its dynamic axes"):
        parse_request(long.body, text, Limits(row_values=49))


def test_arrow_that_unpacks_to_more_than_it_is_is_refused() -> None:
    words = SIGNATURES["words"]
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(60_000, np.int8)), ["a" * 100_000])
    with pytest.raises(BodyTooLargeError, match="MB of memory"):
        Arrow(words, "m", "v").decode({}, valid.stream(pa.table({"x": long})))
    few = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int8()), ["a", "b"])
    assert list(Arrow(words, "m", "v").decode({}, valid.stream(pa.table({"x": few}))).inputs["x"]) == ["a", "b", "a"]
    zeros = pa.table({"x": pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(400_000, np.float32)), 4)})
    for codec in ("zstd", "lz4"):
        with pytest.raises(RequestError, match="compressed buffers; write it without compression"):
            Arrow(FLOATS, "m", "v").decode({}, valid.stream(zeros, compression=codec))
    with pytest.raises(BodyTooLargeError, match="100000 rows in one request"):
        Arrow(FLOATS, "m", "v").decode({}, valid.stream(zeros))
    ends = pa.RunEndEncodedArray.from_arrays(np.array([60_000], np.int32), np.array([1.5], np.float32))
    with pytest.raises(SignatureError, match="holds run_end_encoded"):
        Arrow(FLOATS, "m", "v").decode({}, valid.stream(pa.table({"x": ends})))
    with pytest.raises(RequestError, match="more than 1024 messages"):
        empty = valid.stream(pa.table({"x": zeros.column(0)[:4096]}), batches=4096)
        Arrow(FLOATS, "m", "v").decode({}, empty)
    many = pa.table({f"c{index}": pa.array([1.0]) for index in range(2000)})
    with pytest.raises(SignatureError, match="2000 columns, the model takes 4"):
        Arrow(FLOATS, "m", "v").decode({}, valid.stream(many))


def test_a_message_of_countless_empty_fields_is_refused_unparsed() -> None:
    from tritonclient.grpc import service_pb2

    for body in (b"\x2a\0" * 5_000_000, b"\x2a\x80\xb5\x18" + b"\x2a\0" * 200_000 + b"\x22\0" * 5_000_000):
        with pytest.raises(BodyTooLargeError, match="more than 250000 fields"):
            parse(body, service_pb2.ModelInferRequest)
    for body in (b"\xff" * 100, b"\x2a\x05a", b"\x0b", b"no message"):
        with pytest.raises(RequestError, match="not a ModelInferRequest"):
            parse(body, service_pb2.ModelInferRequest)
    message = service_pb2.ModelInferRequest(raw_input_contents=[bytes(15_000_000)])
    assert parse(message.SerializeToString(), service_pb2.ModelInferRequest) == message


def test_long_names_are_cut_and_cost_no_time() -> None:
    name = "A" * 16_000_000
    started = time.process_time()
    with pytest.raises(SignatureError) as caught:
        parse_request(orjson.dumps({"inputs": {name: 1}}), FLOATS)
    _, message, _ = status_of(caught.value)
    assert message == f"unknown input '{'A' * 99}…'; valid: x"
    assert len(status_of(RequestError(name))[1]) == 400
    assert time.process_time() - started < 2  # comparing letter by letter took 5 s
    assert did_you_mean("fetures", ["features"]) == "; did you mean 'features'?"
    assert shorten("x" * 100) == "x" * 100 and len(shorten("x" * 101)) == 100


def test_limits_follow_the_settings() -> None:
    assert Limits.of(Settings()) == Limits()
    assert Limits.of(Settings(max_body_mb=1)).memory == 32_000_000
    chosen = Settings.from_environment({"HONE_MAX_READ_MB": "10", "HONE_MAX_ROWS": "5", "HONE_MAX_ROW_VALUES": "7"})
    assert Limits.of(chosen) == Limits(10_000_000, 5, 7)
