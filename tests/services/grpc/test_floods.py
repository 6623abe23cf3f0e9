"""gRPC under callers who hold what they don't use: calls, messages, connections; and where its port listens."""

from __future__ import annotations

import asyncio
import shlex
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import InferInput

from hone.services.access.api_keys import add_key
from hone.services.launch import free_port
from tests.models.dense import dense_answer
from tests.servers import DIGITS, Server, caller, put, server
from tests.services.grpc.test_edge import INFER, ROW, infer, message

LIVE = "/inference.GRPCInferenceService/ServerLive"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("shop")
    put(home, home / "artifact", "digits", "v1")
    return home


@pytest.fixture(scope="module")
def open_to_all(home: Path, port: int) -> Iterator[Server]:
    with server(DIGITS, home, HONE_GRPC_PORT=str(port)) as running:
        yield running


@contextmanager
def held_calls(port: int, method: str, count: int) -> Iterator[list[grpc.Future]]:
    """Hold calls open that never send their message."""
    stop = threading.Event()

    def nothing() -> Iterator[bytes]:
        stop.wait(120)
        yield from ()

    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        calls = [channel.stream_unary(method).future(nothing()) for _ in range(count)]
        time.sleep(1)
        try:
            yield calls
        finally:
            stop.set()
            for call in calls:
                call.cancel()


def answered(port: int) -> None:
    np.testing.assert_allclose(infer(port, message()), dense_answer(ROW), rtol=1e-4, atol=1e-5)


def test_probes_are_answered_without_waiting_for_their_messages(open_to_all: Server, port: int) -> None:
    with held_calls(port, LIVE, 300) as calls:
        for call in calls:
            assert call.result(timeout=20) == b"\x08\x01"
        answered(port)


def test_calls_that_send_nothing_do_not_shut_others_out(open_to_all: Server, port: int) -> None:
    with held_calls(port, INFER, 300):
        started = time.monotonic()
        for _ in range(3):
            answered(port)
        assert time.monotonic() - started < 20  # held to their own limit, they stay for 30 s


def test_a_call_that_sends_nothing_makes_room_when_others_wait(open_to_all: Server, port: int) -> None:
    with ExitStack() as stack:
        held = [stack.enter_context(held_calls(port, INFER, 8)) for _ in range(4)]
        answered(port)
        ended = [call for calls in held for call in calls if call.done()]
        assert ended
        assert "did not come in time" in ended[0].details()


def test_one_channel_with_many_calls_at_once_is_served(open_to_all: Server, port: int) -> None:
    rows = np.random.default_rng(0).normal(size=(400, 4)).astype(np.float32)

    async def all_at_once() -> np.ndarray:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{port}") as client:

            async def call(row: np.ndarray) -> np.ndarray:
                given = InferInput("features", [1, 4], "FP32")
                given.set_data_from_numpy(row[None])
                answer = await client.infer("digits", [given])
                found: np.ndarray = answer.as_numpy(answer.get_response().outputs[0].name)
                return found

            assert await client.is_server_live()
            assert await client.is_server_ready()
            return np.concatenate(await asyncio.gather(*map(call, rows)))

    np.testing.assert_allclose(asyncio.run(all_at_once()), dense_answer(rows), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("channels", [1, 8])
def test_no_call_of_a_crowd_ends_without_a_status(open_to_all: Server, port: int, channels: int) -> None:
    async def all_at_once() -> Counter[grpc.StatusCode]:
        async with AsyncExitStack() as stack:
            own = [("grpc.use_local_subchannel_pool", 1)]
            opened = [grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=own) for _ in range(channels)]
            calls = [(await stack.enter_async_context(channel)).unary_unary(INFER) for channel in opened]

            async def call(number: int) -> grpc.StatusCode:
                waiting = calls[number % channels](message(), timeout=120)
                return await waiting.code()

            return Counter(await asyncio.gather(*map(call, range(1900))))

    codes = asyncio.run(all_at_once())
    assert codes[grpc.StatusCode.OK] > 1000
    assert set(codes) <= {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_large_messages_are_held_within_the_budget(open_to_all: Server, port: int) -> None:
    (worker,) = open_to_all.workers()
    process = psutil.Process(worker)
    body = message(bytes(15_000_000), (1, 3_750_000))
    answered(port)
    before, most, stop = process.memory_info().rss, 0, threading.Event()

    def look() -> None:
        nonlocal most
        while not stop.wait(0.01):
            most = max(most, process.memory_info().rss)

    def call(_: int) -> grpc.StatusCode:
        with pytest.raises(grpc.RpcError) as caught:
            infer(port, body)
        return caught.value.code()

    looking = threading.Thread(target=look)
    looking.start()
    try:
        with ThreadPoolExecutor(32) as pool:
            codes = set(pool.map(call, range(64)))
    finally:
        stop.set()
        looking.join()
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAVAILABLE}
    assert (most - before) / 1e6 < 600  # without a budget, 900 to 1500 MB
    answered(port)


def test_idle_connections_do_not_use_up_the_files_of_the_process(home: Path, tmp_path: Path) -> None:
    grpc_port, keys = free_port(), tmp_path / "keys.yaml"
    who = [("x-api-key", add_key(keys, "ci", ("predict",)))]
    few_files = ["bash", "-c", f"ulimit -n 400; exec {shlex.join(DIGITS)}"]
    with (
        server(few_files, home, HONE_GRPC_PORT=str(grpc_port), HONE_API_KEYS=str(keys)) as running,
        grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel,
        ExitStack() as stack,
    ):
        earlier = channel.unary_unary(INFER)
        earlier(message(), metadata=who, timeout=30)
        for _ in range(500):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", grpc_port)))
            with suppress(OSError):
                connection.sendall(PREFACE)
        with caller(running.client.base_url, 10) as client:
            assert client.get("/livez").status_code == 200
        time.sleep(2.5)
        np.testing.assert_allclose(infer(grpc_port, message(), metadata=who), dense_answer(ROW), rtol=1e-4, atol=1e-5)
        earlier(message(), metadata=who, timeout=30)
        assert "idle gRPC connections to make room" in running.log.read_text()
        assert "File descriptor limit" not in running.log.read_text()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_port_listens_where_http_does(home: Path, host: str) -> None:
    grpc_port = free_port()
    arguments = [*DIGITS, "--host", host]
    with server(arguments, home, HONE_GRPC_PORT=str(grpc_port), HONE_INSECURE="1") as running:
        (worker,) = running.workers()
        found = {
            one.laddr.ip
            for one in psutil.Process(worker).net_connections("tcp")
            if one.laddr.port == grpc_port and one.status == psutil.CONN_LISTEN
        }
        assert found <= ({"127.0.0.1", "::ffff:127.0.0.1"} if host == "127.0.0.1" else {"0.0.0.0", "::"})
        assert found
        answered(grpc_port)
