"""Locust's page, in a browser and as a browser calls it, and a master with workers of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest
from selenium.common.exceptions import StaleElementReferenceException

from hone.services.launch import free_port
from tests import browser
from tests.benchmarks import small_service
from tests.benchmarks.locusts import LOCUST, address, totals, two_models
from tests.browser import Page
from tests.servers import ROOT, Server, caller

Process = subprocess.Popen[bytes]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with two_models(tmp_path_factory.mktemp("plain")) as running:
        yield running


@contextmanager
def locust(*arguments: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run Locust beside the test, and end it as its terminal would."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    with log.open("w") as stream:
        process = subprocess.Popen([*LOCUST, *arguments], cwd=ROOT, env=variables, stdout=stream, stderr=stream)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def locust_page(*arguments: str, log: Path, **environment: str) -> Iterator[httpx.Client]:
    port = free_port()
    with (
        locust("--web-host", "127.0.0.1", "--web-port", str(port), *arguments, log=log, **environment),
        caller(f"http://127.0.0.1:{port}") as page,
    ):
        wait_for(page, log)
        yield page


def wait_for(page: httpx.Client, log: Path) -> None:
    for _ in range(300):
        try:
            page.get("/")
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"Locust's page didn't come up: {log.read_text()}")


def swarm(page: httpx.Client, host: str, **fields: str) -> dict[str, object]:
    """Start a run from the page, let it run, stop it; return its figures while it ran."""
    answer = page.post("/swarm", data={"user_count": "3", "spawn_rate": "10", "host": host, **fields})
    assert answer.json()["success"], answer.text
    deadline = time.monotonic() + 90  # a busy host is slow to start senders
    figures: dict[str, object] = {}
    while time.monotonic() < deadline:
        figures = page.get("/stats/requests").json()
        exceptions = page.get("/exceptions").json()["exceptions"]
        if exceptions or (figures["user_count"] == 3 and figures["stats"][-1]["num_requests"] > 5):  # type: ignore[index]
            break
        time.sleep(0.2)
    assert page.post("/stop").json()["success"]
    while page.get("/stats/requests").json()["state"] != "stopped" and time.monotonic() < deadline:
        time.sleep(0.1)
    return figures


def names(figures: dict[str, object]) -> set[str]:
    return {entry["name"] for entry in figures["stats"]} - {"Aggregated"}  # type: ignore[attr-defined,index]


def test_web_page_runs_again_with_other_options(service: Server, tmp_path: Path) -> None:
    with locust_page(log=tmp_path / "locust.log", HONE_BENCH_KEY="not-for-the-page") as page:
        start = page.get("/").text
        for option in ("protocol", "model", "rows", "data", "api_key", "ca", "p99", "max_errors"):
            assert f'"{option}": {{' in start
        assert "not-for-the-page" not in start
        first = swarm(page, address(service), protocol="json", p99="0.0001ms")
        assert first["user_count"] == 3
        assert names(first) == {"/models/dense/predict"}
        (problem,) = page.get("/exceptions").json()["exceptions"]
        assert "the limit is 0.0001 ms" in problem["msg"]
        second = swarm(page, address(service), protocol="v2-binary", model="reverse", p99="")
        assert second["user_count"] == 3
        assert names(second) == {"/v2/models/reverse/infer"}
        assert page.get("/exceptions").json()["exceptions"] == []
        swarm(page, "http://127.0.0.1:9")
        (problem,) = page.get("/exceptions").json()["exceptions"]
        assert "no service answers" in problem["msg"]
        assert names(swarm(page, address(service), model="dense")) == {"/v2/models/dense/infer"}


@pytest.mark.slow
@pytest.mark.skipif(bool(browser.missing()), reason=browser.missing())
def test_page_in_a_browser_starts_stops_and_starts_with_another_protocol(service: Server, tmp_path: Path) -> None:
    with locust_page(log=tmp_path / "locust.log") as client, browser.browser(tmp_path / "profile") as page:
        page.driver.get(str(client.base_url))
        first = run_from_the_form(page, address(service), protocol="json", rows="2", maxErrors="0")
        assert set(first) == {"/models/dense/predict", "Aggregated"}
        page.press("New")
        second = run_from_the_form(page, address(service), protocol="v2-binary", model="reverse")
        assert set(second) == {"/v2/models/reverse/infer", "Aggregated"}
        assert client.get("/exceptions").json()["exceptions"] == []


def run_from_the_form(page: Page, host: str, **options: str) -> dict[str, list[str]]:
    """Fill in the form, start, see requests counted, and stop; return what the page showed of them."""
    for name, value in {"userCount": "3", "spawnRate": "10", "host": host}.items():
        page.fill(name, value)
    page.press("Custom parameters")
    for name, value in options.items():
        page.fill(name, value)
    page.press("Start")
    before = page.wait.until(lambda _: counted(page))
    page.wait.until(lambda _: counted(page) > before, "the page counts no more requests")
    shown = page.rows()
    page.press("Stop")
    page.shown("New")
    return shown


def counted(page: Page) -> int:
    """Return the requests that the page shows; 0 while it draws its table anew."""
    try:
        _, _, requests, failures, *_ = page.rows().get("Aggregated", ["", "", "0", "0"])
    except StaleElementReferenceException:
        return 0
    assert failures == "0"
    return int(re.sub(r"\D", "", requests))


@contextmanager
def workers(count: int, port: int, folder: Path) -> Iterator[None]:
    """Run workers, each told of the master and of nothing else."""
    with ExitStack() as stack:
        for number in range(count):
            where = ("--master-host", "127.0.0.1", "--master-port", str(port))
            stack.enter_context(locust("--worker", *where, log=folder / f"{number}.log"))
        yield


@pytest.mark.slow
def test_master_shares_a_load_out_to_workers_and_judges_all_of_it(service: Server, tmp_path: Path) -> None:
    port, run, log = free_port(), tmp_path / "run", tmp_path / "master.log"
    master = ("--master", "--master-bind-port", str(port), "--expect-workers", "2", "--headless", "-u", "4",
              "-r", "100", "-t", "15s", "--host", address(service), "--protocol", "v2-binary", "--rows", "3",
              "--csv", str(run), "--html", f"{run}.html", "--errors", "0", "--p99", "0.0001ms")  # fmt: skip
    with workers(2, port, tmp_path), locust(*master, log=log) as process:
        assert process.wait(90) == 1, log.read_text()
    assert "the limit is 0.0001 ms" in log.read_text()
    requests, failures = totals(run)["/v2/models/dense/infer"]
    assert requests > 5
    assert failures == 0
    assert "/v2/models/dense/infer" in Path(f"{run}.html").read_text()
    for number in range(2):
        assert "loading dense:onnx-fp32-1" in (tmp_path / f"{number}.log").read_text()


@contextmanager
def master_of_two(folder: Path, takes_s: float) -> Iterator[tuple[str, Process, Process]]:
    """Run a master that loads a slow service by two workers; yield the service, the master and one of the two."""
    port, log = free_port(), folder / "master.log"
    master = ("--master", "--master-bind-port", str(port), "--expect-workers", "2", "--headless", "-u", "4",
              "-r", "100", "--model", "dense", "--csv", str(folder / "run"), "--errors", "0")  # fmt: skip
    where = ("--worker", "--master-host", "127.0.0.1", "--master-port", str(port))
    with (
        small_service.running(folder, takes_s) as host,
        workers(1, port, folder),
        locust(*where, log=folder / "second.log") as second,
        locust(*master, "--host", host, log=log) as process,
    ):
        deadline = time.monotonic() + 90
        while "/models/dense/predict" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield host, process, second


@pytest.mark.slow
def test_a_master_counts_what_workers_note_after_the_end(tmp_path: Path) -> None:
    with master_of_two(tmp_path, 1.2) as (host, master, _):
        master.terminate()
        assert master.wait(90) == 0, (tmp_path / "master.log").read_text()
        answered = httpx.get(host).json()["answered"]
    assert totals(tmp_path / "run")["/models/dense/predict"] == (answered, 0)


@pytest.mark.slow
def test_a_master_names_the_worker_whose_figures_are_missing(tmp_path: Path) -> None:
    with master_of_two(tmp_path, 0.1) as (_, master, second):
        second.send_signal(signal.SIGSTOP)
        try:
            master.terminate()
            assert master.wait(90) == 1
        finally:
            second.send_signal(signal.SIGCONT)
    text = (tmp_path / "master.log").read_text()
    (line,) = [line for line in text.splitlines() if "ERROR" in line]
    assert "the last figures of worker" in line and "did not come; the totals lack them" in line


@pytest.mark.slow
def test_page_of_a_master_runs_again_with_another_protocol(service: Server, tmp_path: Path) -> None:
    port = free_port()
    master = ("--master", "--master-bind-port", str(port))
    with workers(2, port, tmp_path), locust_page(*master, log=tmp_path / "master.log") as page:
        for _ in range(300):
            if page.get("/stats/requests").json()["worker_count"] == 2:
                break
            time.sleep(0.1)
        first = swarm(page, address(service), protocol="json")
        assert names(first) == {"/models/dense/predict"}
        second = swarm(page, address(service), protocol="rows", model="reverse:onnx-fp32")
        assert names(second) == {"/models/reverse/versions/onnx-fp32-1/predict"}
        swarm(page, address(service), model="nope")
        (problem,) = page.get("/exceptions").json()["exceptions"]
        assert "serves no model 'nope'" in problem["msg"]
