"""The sender by itself: what it writes down is what happened, whatever the server does."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from hone.benchmarks.generators import instant_server
from hone.benchmarks.load.sending.connection import Connection, Endpoint
from hone.benchmarks.load.sending.fleet import Fleet
from hone.benchmarks.load.sending.plan import NOT_SENT, Plan, Reader, request_bytes
from hone.benchmarks.load.target import Access
from hone.benchmarks.load.wire import Call
from hone.benchmarks.sampling import sampled
from hone.errors import HoneError

CALL = Call("/models/dense/predict", {"content-type": "application/json"}, b'{"inputs":{}}')
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


def plan(url: str, **load: Any) -> Plan:
    return Plan(
        url=url, requests=[request_bytes(url, CALL, {})], rows=np.zeros(1, int), order=np.zeros(1, np.uint32), **load
    )


def sent(folder: Path, *plans: Plan) -> tuple[np.ndarray, list[list[str]], dict[str, Any]]:
    """Run plans to their end; return the records, the words of the errors and the first sender's summary."""
    folders = [folder / str(number) for number in range(len(plans))]
    for place, one in zip(folders, plans, strict=True):
        one.write(place)
    fleet = Fleet(folders)
    try:
        while fleet.running:
            time.sleep(0.05)
    finally:
        fleet.end()
    assert fleet.failure() == ""
    return fleet.more(), fleet.errors(), Reader(folders[0]).summary()


@contextmanager
def talker(answer: Callable[[socket.socket, int], None]) -> Iterator[str]:
    """A server that reads a request and lets a function answer it, told how many came before on any connection."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    done, count, lock = threading.Event(), 0, threading.Lock()

    def serve(client: socket.socket) -> None:
        nonlocal count
        with client:
            while client.fileno() >= 0 and client.recv(65536):
                with lock:
                    number, count = count, count + 1
                with suppress(OSError):
                    answer(client, number)

    def accept() -> None:
        while not done.is_set():
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            client.settimeout(None)
            threading.Thread(target=serve, args=(client,), daemon=True).start()

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        done.set()
        thread.join()
        listener.close()


@needs_compiler
def test_open_loop_sends_every_request_once_at_its_time(tmp_path: Path) -> None:
    arrivals = np.sort(np.random.default_rng(0).random(600)) * 1.5
    with instant_server() as url:
        records, errors, summary = sent(tmp_path, plan(url, arrivals=arrivals))
    assert sorted(records["intended"]) == pytest.approx(arrivals)
    assert (records["started"] >= records["intended"]).all()
    assert (records["ended"] >= records["started"]).all()
    assert errors == [[]]
    assert set(records["size"].tolist()) == {2}
    assert 0 < summary["cpu_share"] < 1


@needs_compiler
def test_gaps_are_those_of_the_trace(tmp_path: Path) -> None:
    """Within a millisecond at p99, on a machine that wakes whoever sleeps in time; others can't tell."""
    arrivals = np.cumsum(np.random.default_rng(0).exponential(0.01, 200))
    quiet = False
    with instant_server() as url:
        for attempt in range(6):
            with sampled(overslept_ms) as overslept:
                records, _, _ = sent(tmp_path / str(attempt), plan(url, arrivals=arrivals))
            off = np.abs(np.diff(np.sort(records["started"])) - np.diff(arrivals))
            if np.percentile(off, 99) < 0.001:
                return
            quiet = quiet or np.percentile(overslept, 99) < 0.3
    if not quiet:
        pytest.skip("this machine wakes nobody in time")
    pytest.fail(f"gaps are off by {np.percentile(off, 99) * 1e3:.2f} ms at p99")


def overslept_ms() -> float:
    before = time.perf_counter()
    time.sleep(0.0005)
    return (time.perf_counter() - before - 0.0005) * 1e3


@needs_compiler
def test_several_senders_share_arrivals_from_one_moment(tmp_path: Path) -> None:
    arrivals = np.arange(400) / 400
    with instant_server() as url:
        plans = [plan(url, arrivals=arrivals[number::2], number=number) for number in range(2)]
        records, _, _ = sent(tmp_path, *plans)
    assert sorted(records["intended"]) == pytest.approx(arrivals)
    assert np.bincount(records["sender"]).tolist() == [200, 200]


@needs_compiler
def test_callers_come_and_go_while_it_runs(tmp_path: Path) -> None:
    with instant_server() as url:
        plan(url).write(tmp_path)
        fleet = Fleet([tmp_path])
        try:
            time.sleep(0.5)
            assert len(fleet.more()) == 0
            fleet.set_users(3)
            deadline = time.monotonic() + 20
            while not len(fleet.more()) and time.monotonic() < deadline:
                time.sleep(0.1)
            fleet.set_users(0)
            time.sleep(1.0)
            fleet.more()
            time.sleep(0.5)
            assert len(fleet.more()) == 0
        finally:
            fleet.end()


def test_connection_is_used_for_one_request_at_a_time(tmp_path: Path) -> None:
    """No pipelining: a request waits for no other's answer, so a slow one delays itself alone."""

    def slow_first(client: socket.socket, number: int) -> None:
        if number == 0:
            time.sleep(1.0)
        client.sendall(OK)

    with talker(slow_first) as url:
        records, _, _ = sent(tmp_path, plan(url, arrivals=np.arange(20) / 50))
    took = np.sort(records["ended"] - records["started"])
    assert len(took) == 20
    assert took[-1] >= 1.0
    assert took[-2] < 0.9


@pytest.mark.parametrize(
    ("name", "answer", "error"),
    [
        ("in pieces", [OK[:9], OK[9:30], OK[30:]], ""),
        ("chunked", [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n", b"}\r\n0\r\n\r\n"], ""),
        ("small letters", [b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ndate: x\r\n\r\n{}"], ""),
        ("another status", [b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"], "status 503"),
        ("no HTTP", [b"hello\r\n\r\n"], "not HTTP"),
        ("no length", [b"HTTP/1.1 200 OK\r\n\r\n{}"], "not HTTP"),
    ],
)
def test_answers_are_read_however_they_come(tmp_path: Path, name: str, answer: list[bytes], error: str) -> None:
    def speak(client: socket.socket, _: int) -> None:
        for part in answer:
            client.sendall(part)
            time.sleep(0.01)

    with talker(speak) as url:
        records, errors, _ = sent(tmp_path, plan(url, arrivals=np.arange(10) / 50))
    assert len(records) == 10
    assert errors == ([[error]] if error else [[]])
    assert (records["error"] > 0).all() == bool(error)


def test_server_that_closes_after_each_answer_is_asked_on_new_connections(tmp_path: Path) -> None:
    def close(client: socket.socket, _: int) -> None:
        client.sendall(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        client.shutdown(socket.SHUT_RDWR)

    with talker(close) as url:
        records, errors, _ = sent(tmp_path, plan(url, users=2, duration_s=0.5))
    assert len(records) > 10
    assert errors == [[]]


def test_service_that_hangs_up_or_is_gone_is_counted_and_asked_again(tmp_path: Path) -> None:
    def moody(client: socket.socket, number: int) -> None:
        if number % 3 == 0:
            client.close()
        else:
            client.sendall(OK)

    with talker(moody) as url:
        records, errors, _ = sent(tmp_path, plan(url, users=3, duration_s=1.0))
    assert errors == [["no answer: ConnectionResetError"]]
    assert 0 < (records["error"] > 0).sum() < len(records)
    gone, words, _ = sent(tmp_path / "gone", plan(url, users=3, duration_s=1.0))
    assert words == [["no answer: ConnectionRefusedError"]]
    assert 3 <= len(gone) < 100  # a caller without a connection pauses


def test_what_is_beyond_the_connections_is_noted_as_not_sent(tmp_path: Path) -> None:
    def never(client: socket.socket, _: int) -> None:
        time.sleep(5.0)

    with talker(never) as url:
        plan(url, arrivals=np.arange(10) / 100, in_flight=4).write(tmp_path)
        fleet = Fleet([tmp_path])
        time.sleep(1.0)
        fleet.end()
    records, words = fleet.more(), fleet.errors()[0]
    found = [words[code - 1] for code in records["error"]]
    assert found.count(NOT_SENT) == 6
    assert found.count("no answer: the run was over") == 4


@needs_compiler
def test_no_sender_outlives_who_started_it(tmp_path: Path) -> None:
    with instant_server() as url:
        plan(url, users=1).write(tmp_path)
        code = f"""
import time
from pathlib import Path
from hone.benchmarks.load.sending.fleet import Fleet
fleet = Fleet([Path({str(tmp_path)!r})])
print(fleet._children[0]._process.pid, flush=True)
time.sleep(60)
"""
        starter = subprocess.Popen([shutil.which("python") or "python", "-c", code], stdout=subprocess.PIPE, text=True)
        assert starter.stdout is not None
        sender = psutil.Process(int(starter.stdout.readline()))
        deadline = time.monotonic() + 20
        while not len(Reader(tmp_path).more()) and time.monotonic() < deadline:
            time.sleep(0.1)
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
        sender.wait(20)
        assert Reader(tmp_path).summary()["cpu_share"] > 0


def test_plan_that_cannot_be_followed_is_one_line(tmp_path: Path) -> None:
    url = "http://no-such-host.invalid:3000"
    plan(url, users=1, duration_s=1).write(tmp_path)
    with pytest.raises(HoneError, match=r"^http://no-such-host\.invalid:3000: no such host"):
        Fleet([tmp_path])
    with pytest.raises(HoneError, match="the header x-api-key can't be sent"):
        request_bytes("http://h", CALL, {"x-api-key": "a\r\nb: c"})


@needs_compiler
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_disk_is_one_line_and_ends_the_sender(tmp_path: Path) -> None:
    with instant_server() as url:
        plan(url, arrivals=np.arange(500) / 100).write(tmp_path)
        (tmp_path / "records").symlink_to("/dev/full")
        fleet = Fleet([tmp_path])
        deadline = time.monotonic() + 20
        while fleet.running and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not fleet.running
        assert fleet.failure() == "records: No space left on device"
        fleet.end()


def test_host_and_path_of_an_address_are_in_the_request() -> None:
    text = request_bytes("http://[::1]:3000/prefix/", CALL, {"x-api-key": "k"})
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"POST /prefix/models/dense/predict HTTP/1.1", b"host: [::1]:3000", b"content-type: application/json",
        b"x-api-key: k", b"content-length: 13",
    ]  # fmt: skip
    assert body == CALL.body


def test_request_larger_than_the_network_takes_at_once_arrives_whole() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    endpoint = Endpoint.of(f"http://127.0.0.1:{listener.getsockname()[1]}", Access())
    connection = Connection(endpoint)
    content = os.urandom(20_000_000)
    got = bytearray()

    def read() -> None:
        with listener.accept()[0] as client:
            while len(got) < len(content):
                got.extend(client.recv(1 << 20))

    thread = threading.Thread(target=read)
    thread.start()
    connection.send(content)
    while connection.unsent or connection.opening:
        connection.go_on()
    thread.join()
    assert bytes(got) == content
    connection.close()
    listener.close()


def test_connection_that_the_server_has_closed_is_known_before_it_is_used() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = Connection(Endpoint.of(f"http://127.0.0.1:{listener.getsockname()[1]}", Access()))
        client, _ = listener.accept()
        connection.go_on()
        assert not connection.opening
        assert not connection.ended(10.0)
        client.close()
        deadline = time.monotonic() + 10
        while not connection.ended(10.0):
            assert time.monotonic() < deadline
        assert not connection.ended(connection.started), "one that was just used is not looked at"
        connection.close()
