"""What brings callers to pods: a Service, which balances connections, and an ingress, which balances requests.

Both follow the Endpoints that the real controller writes, and both are late by some seconds, as proxies on many nodes
are. A connection through the Service stays with its pod for as long as both ends keep it. The ingress tries another
pod when one refuses its connection; a request that was sent is never sent again, because it may have been heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import aiohttp
import yaml
from aiohttp import web

from tests.cluster import ControlPlane

LATE_S = 3.0
LOOK_S = 0.25
NOT_PASSED_ON = {"host", "content-length", "transfer-encoding", "connection", "keep-alive"}


class Balancer:
    """Both, on ports of their own, until the end of the block.

    Args:
        port_of: the port on this machine that stands for a pod's address; None: there is none any more.

    Attributes:
        ingress, service: their URLs.
        lost: requests that the ingress had sent to a pod, by its address, and that it got no answer to.
        retried: requests that another pod was asked for, because the first one refused the connection.
        in_flight: requests that the ingress waits for, by the pods' addresses.
    """

    def __init__(self, cluster: ControlPlane, namespace: str, port_of: Callable[[str], int | None]) -> None:
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        server, token = config["clusters"][0]["cluster"]["server"], config["users"][0]["user"]["token"]
        self._endpoints = f"{server}/api/v1/namespaces/{namespace}/endpoints/hone"
        self._token = token
        self._port_of = port_of
        self._ready: list[str] = []
        self._seen: deque[tuple[float, list[str]]] = deque()
        self._random = random.Random(0)
        self._up = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.ingress = self.service = ""
        self.lost: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()
        self.retried = 0

    def __enter__(self) -> Balancer:
        self._thread.start()
        assert self._up.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()

    def known(self) -> int:
        """Return how many pods callers are sent to."""
        return len(self._ready)

    def busiest(self) -> tuple[str, int]:
        """Return the address of the pod with the most requests through the ingress, and how many these are."""
        address = max(self._ready, key=lambda address: self.in_flight[address])
        return address, self.in_flight[address]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._main = self._loop.create_task(self._serve())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._main)

    async def _serve(self) -> None:
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=False), timeout=aiohttp.ClientTimeout(30), auto_decompress=False
        ) as session:
            self._session = session
            application = web.Application(client_max_size=2**24)
            application.router.add_route("*", "/{path:.*}", self._pass_on)
            runner = web.AppRunner(application, access_log=None)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            connections = await asyncio.start_server(self._connect, "127.0.0.1", 0)
            self.ingress = f"http://127.0.0.1:{runner.addresses[0][1]}"
            self.service = f"http://127.0.0.1:{connections.sockets[0].getsockname()[1]}"
            self._up.set()
            try:
                while True:
                    await self._look()
                    await asyncio.sleep(LOOK_S)
            finally:
                connections.close()
                await runner.cleanup()

    async def _look(self) -> None:
        """Read the endpoints, and go by those of some seconds ago."""
        headers = {"authorization": f"Bearer {self._token}"}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._session.get(self._endpoints, headers=headers) as answer:
                subsets = (await answer.json()).get("subsets") or []
            ready = [address["ip"] for subset in subsets for address in subset.get("addresses") or []]
            self._seen.append((time.monotonic() + LATE_S, ready))
        while self._seen and self._seen[0][0] <= time.monotonic():
            self._ready = self._seen.popleft()[1]

    def _pick(self, tried: set[str]) -> str | None:
        """Return the less busy one of two pods."""
        left = [address for address in self._ready if address not in tried]
        two = self._random.sample(left, min(2, len(left)))
        return min(two, key=lambda address: self.in_flight[address], default=None)

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name: value for name, value in request.headers.items() if name.lower() not in NOT_PASSED_ON}
        tried: set[str] = set()
        while (address := self._pick(tried)) is not None:
            tried.add(address)
            self.in_flight[address] += 1
            try:
                url = f"http://127.0.0.1:{self._port_of(address) or 1}{request.path_qs}"
                async with self._session.request(request.method, url, data=body, headers=headers) as answer:
                    content = await answer.read()
                    kept = {n: v for n, v in answer.headers.items() if n.lower() not in NOT_PASSED_ON}
                    return web.Response(status=answer.status, body=content, headers=kept)
            except aiohttp.ClientConnectorError:
                self.retried += 1
            except (aiohttp.ClientError, TimeoutError):
                self.lost[address] += 1
                return web.Response(status=502)
            finally:
                self.in_flight[address] -= 1
        return web.Response(status=503)

    async def _connect(self, caller: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        address = self._random.choice(self._ready) if self._ready else ""
        try:
            pod, forth = await asyncio.open_connection("127.0.0.1", self._port_of(address) or 1)
        except OSError:
            back.transport.abort()
            return
        await asyncio.gather(_pipe(caller, forth), _pipe(pod, back))


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()
