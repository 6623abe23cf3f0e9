"""Locust's users for a service that Hone serves: a class a protocol, and the options of `benchmarks/locustfile.py`.

Everything that a run needs is asked of the service when the run starts, so that the web page can start another run
with another service, model or protocol.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gevent
from locust import User, events, task
from locust.exception import StopUser
from locust.runners import MasterRunner, WorkerRunner

from hone.errors import HoneError

from .crowd import Crowd
from .limits import parse_ms, parse_share
from .payload import rows_for
from .sending.fleet import Child
from .statistics import LastFigures, answer_master
from .target import Access, ask
from .wire import WIRES
from .workload import requests

KEY_VARIABLE = "HONE_BENCH_KEY"
FOLLOW_S = 0.25
IDLE_S = 1.0

logger = logging.getLogger("hone.load")


@events.init_command_line_parser.add_listener
def add_options(parser: Any) -> None:
    """Add the options of this file to Locust's; its web page shows them, too."""
    parser.add_argument(
        "--protocol", choices=list(WIRES), default="json",
        help="What requests are sent in. User classes named on the command line choose it instead.",
    )  # fmt: skip
    parser.add_argument("--model", default="", help="NAME, NAME:VARIANT or a full tag. Default: the first one served.")
    parser.add_argument("--rows", type=int, default=1, help="Rows in each request.")
    parser.add_argument(
        "--data", default="",
        help="Rows to send: .npz, .parquet, .csv, or .json as /predict takes it. Default: the service's examples.",
    )  # fmt: skip
    parser.add_argument(
        "--api-key", default="", is_secret=True,
        help=f"Sent as x-api-key. Better set {KEY_VARIABLE}: command lines can be read by others.",
    )  # fmt: skip
    parser.add_argument("--ca", default="", help="File of certificates to check the service's with.")
    parser.add_argument(
        "--grpc-address", default="", help="HOST:PORT of the service's gRPC, where that isn't what it says itself."
    )
    parser.add_argument(
        "--p99", default="", type=_checked(parse_ms),
        help="Limit of the 99th percentile, such as 50ms: exit status 1 when it is missed. Locust knows latencies to "
        "two digits, and to a millisecond; hone bench keeps every one.",
    )  # fmt: skip
    parser.add_argument(
        "--max-errors", "--errors", default="", type=_checked(parse_share),
        help="Share of requests that may fail, such as 0.01: exit status 1 above it, 0 below. Default: none.",
    )  # fmt: skip


def _checked(parse: Callable[[str], float]) -> Callable[[str], str]:
    """Return an option's type that checks its text and keeps it: the web page gives texts back."""

    def check(text: str) -> str:
        try:
            if text:
                parse(text)
        except HoneError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        return text

    return check


_run: Crowd | None = None
_started = False
_last_figures: LastFigures | None = None
_spare: list[Child] = []
"""Senders that wait for a plan: what they import is read while Locust gets ready."""


@events.init.add_listener
def follow_protocol(environment: Any, web_ui: Any = None, **_: Any) -> None:
    """Let --protocol and the page's field choose the class of the users, unless classes are named or picked."""
    _connect(environment)
    options = environment.parsed_options
    chosen = options is None or options.user_classes or options.class_picker
    classes = {user.protocol: user for user in environment.user_classes}
    if not chosen and not isinstance(environment.runner, WorkerRunner):  # a worker spawns what it is told to
        environment.user_classes = [classes[options.protocol]]
    if not isinstance(environment.runner, MasterRunner):
        children = [Child() for _ in environment.user_classes[: None if chosen else 1]]
        for child in children:
            child.wait("up")
        _spare.extend(children)
    # Its clock stood still while everything was imported; --run-time would be shorter by that.
    gevent.get_hub().loop.update_now()
    if chosen:
        return
    if web_ui is None:
        return

    @web_ui.app.before_request
    def choose() -> None:
        from flask import request

        if not request.path.endswith("/swarm") or environment.runner.user_count:
            return  # users that run keep their protocol until they are stopped
        chosen = classes.get(request.form.get("protocol", ""))
        if chosen is not None:
            environment.user_classes = [chosen]


def _connect(environment: Any) -> None:
    """Let a master and its workers speak of a run's last figures."""
    global _last_figures
    if isinstance(environment.runner, MasterRunner):
        _last_figures = LastFigures(environment.runner)
    if isinstance(environment.runner, WorkerRunner):
        answer_master(environment.runner, lambda: end(environment))


@events.test_start.add_listener
def prepare(environment: Any, **_: Any) -> None:
    """Ask the service what it serves; end the run with one line when it can't be loaded."""
    global _run, _started
    _run, _started = None, True
    environment.process_exit_code = None
    try:
        _run = _read(environment)
        if not isinstance(environment.runner, MasterRunner):
            gevent.spawn(_follow, _run, environment)
    except HoneError as error:
        logger.error("%s", error)
        environment.runner.log_exception("local", str(error), "")
        environment.process_exit_code = 1
        if not isinstance(environment.runner, WorkerRunner):
            gevent.spawn(environment.runner.quit if environment.parsed_options.headless else environment.runner.stop)


def _read(environment: Any) -> Crowd:
    options = environment.parsed_options
    if not environment.host:
        raise HoneError("give the service's address: --host http://127.0.0.1:3000")
    if options.rows < 1:
        raise HoneError(f"--rows {options.rows}: give a number from 1 up")
    limits_of(options)
    key, ca = options.api_key or os.environ.get(KEY_VARIABLE, ""), Path(options.ca) if options.ca else None
    access = Access(key, ca, options.grpc_address)
    target = ask(environment.host, access, options.model)
    rows = rows_for(target, Path(options.data) if options.data else None)
    inputs, sizes = requests(rows.pool, target.signature, (options.rows,))
    crowd = Crowd(target, inputs, sizes, tempfile.TemporaryDirectory(prefix="hone-load-"), _spare)
    if not isinstance(environment.runner, WorkerRunner):  # which is told later of which classes its users are
        for user in environment.user_classes:
            crowd.prepare(user.protocol)
    logger.info("loading %s at %s%s with %s", target.tag, target.url, target.path, rows.words)
    return crowd


def _follow(run: Crowd, environment: Any) -> None:
    """Tell Locust what comes, until the run is over; a sender that ends before its time ends the run."""
    while run is _run:
        run.tell(environment.stats)
        if failure := run.failure():
            logger.error("%s", failure)
            environment.runner.log_exception("local", failure, "")
            environment.process_exit_code = 1
            environment.runner.quit()
            return
        gevent.sleep(FOLLOW_S)


class Predicting(User):
    """A caller who sends one request after the other, each when the one before was answered.

    A sender's process does it (`sending/sender.py`), for all users of a class: a request costs a tenth of what it
    costs in Locust's own process. Here a user is only counted.
    """

    abstract = True
    protocol: str

    def on_start(self) -> None:
        if _run is not None:
            _run.change(self.protocol, 1)

    @task
    def predict(self) -> None:
        if _run is None:
            raise StopUser
        gevent.sleep(IDLE_S)

    def on_stop(self) -> None:
        if _run is not None:
            _run.change(self.protocol, -1)


class JsonUser(Predicting):
    """Nested lists, the form that people use."""

    protocol = "json"


class RowsUser(Predicting):
    """Bare binary rows, the cheapest."""

    protocol = "rows"


class V2JsonUser(Predicting):
    """Open Inference Protocol V2 in JSON."""

    protocol = "v2"


class V2BinaryUser(Predicting):
    """Open Inference Protocol V2 with binary tensors, as Triton's clients send it."""

    protocol = "v2-binary"


class GrpcUser(Predicting):
    """Open Inference Protocol V2 over gRPC, with raw tensors."""

    protocol = "grpc"


class ArrowUser(Predicting):
    """Tables as Arrow streams."""

    protocol = "arrow"


def limits_of(options: Any) -> tuple[float | None, float | None]:
    """Return the limit of p99 in milliseconds and of the share of errors, None where there is none."""
    return (
        parse_ms(options.p99) if options.p99 else None,
        parse_share(options.max_errors) if options.max_errors else None,
    )


def missed(environment: Any) -> list[str]:
    """Return a line for each limit that the run missed."""
    p99_ms, max_errors = limits_of(environment.parsed_options)
    total = environment.stats.total
    if not total.num_requests:
        return ["no request was answered"]
    if total.num_failures == total.num_requests:
        return [f"every one of {total.num_requests} requests failed"]
    lines, found = [], total.get_response_time_percentile(0.99)
    if p99_ms is not None and found > p99_ms:
        lines.append(f"p99 {found:g} ms, the limit is {p99_ms:g} ms")
    if max_errors is not None and total.fail_ratio > max_errors:
        lines.append(f"{total.fail_ratio:.2%} of the requests failed, the limit is {max_errors:.2%}")
    return lines


@events.test_stop.add_listener
def end(environment: Any, **_: Any) -> None:
    """End the senders, wait for those of workers, and show on the page which limits the run missed."""
    global _run
    if _run is None:
        return
    run, _run = _run, None
    run.end(environment.stats)
    for name in _last_figures.missing() if _last_figures is not None else ():
        line = f"the last figures of worker {name} did not come; the totals lack them"
        logger.error("%s", line)
        environment.runner.log_exception(name, line, line)
    if environment.web_ui is not None:
        _spare.append(Child())
    if environment.web_ui is not None and any(limits_of(environment.parsed_options)):
        for line in missed(environment):
            environment.runner.log_exception("limits", line, line)


@events.quitting.add_listener
def judge(environment: Any, **_: Any) -> None:
    """Set the exit status: 1 when a limit was missed, every request failed or the service can't be loaded."""
    end(environment)  # on Ctrl-C the run goes on until here
    for child in _spare:
        child.end(1.0)
    if isinstance(environment.runner, WorkerRunner) or not _started or environment.process_exit_code is not None:
        return
    lines = missed(environment)
    for line in lines:
        logger.error("%s", line)
    if lines:
        environment.process_exit_code = 1
    elif environment.parsed_options.max_errors and not environment.runner.exceptions:
        environment.process_exit_code = 0
