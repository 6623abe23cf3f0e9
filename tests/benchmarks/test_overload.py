"""A real service at several times what it holds: what callers, probes and the autoscaler see of it, in shares."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
import pytest

from hone.benchmarks.capacity.runs import Runs
from hone.benchmarks.capacity.search import GAP, Effort, search
from hone.benchmarks.load.run import find_target
from hone.benchmarks.load.target import Access
from hone.benchmarks.overload.__main__ import rate_of
from hone.benchmarks.overload.beside import Seen
from hone.benchmarks.overload.cores import kept_to, shared_out
from hone.benchmarks.overload.judge import judge
from hone.benchmarks.overload.model import NAME, store_slow_model
from hone.benchmarks.overload.sending import ANSWERED, REFUSED, Came, Load, overload
from hone.capacity import Slo
from hone.errors import HoneError
from hone.hardware import cores
from tests.benchmarks.clockwork import Clockwork
from tests.servers import HONE, server, use_store

DEADLINE_MS = 100.0
SECONDS = 4.0
ROWS = 4


@dataclass(frozen=True)
class Run:
    """An overload, and the rows in flight that Prometheus would have seen meanwhile."""

    came: Came
    load: Load
    in_flight: float


def row_seconds(client: httpx.Client) -> float:
    time.sleep(0.5)  # counts go to the client library four times a second
    found = re.search(r"^hone_row_seconds_total\{.*\} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def held(client: httpx.Client) -> float:
    """Return the requests per second that one caller without a pause gets answered: less than the service holds."""
    body = {"inputs": {"x": np.zeros((ROWS, 16)).tolist()}}
    count, end = 0, time.monotonic() + 2.0
    while time.monotonic() < end:
        assert client.post("/predict", json=body).status_code == 200
        count += 1
    return count / 2.0


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[float, list[Run]]]:
    """What one caller got, and overloads at four and twelve times that."""
    folder = tmp_path_factory.mktemp("overload")
    use_store(folder / "home")
    store_slow_model(folder / "model")
    with server([HONE, "serve", NAME, "--threads", "1", "--port", "{port}"], folder / "home") as running:
        target = find_target(str(running.client.base_url), NAME, Access())
        capacity = held(running.client)
        found = []
        for times in (4, 12):
            before, began = row_seconds(running.client), time.monotonic()
            load = Load(times * capacity, ROWS, DEADLINE_MS, SECONDS)
            came = overload(target, load)
            rows = row_seconds(running.client) - before
            found.append(Run(came, load, rows / (time.monotonic() - began)))
        yield capacity, found


@pytest.mark.slow
def test_overloaded_service_answers_what_it_can_and_refuses_the_rest(runs: tuple[float, list[Run]]) -> None:
    capacity, (_, run) = runs
    figures = judge(run.came, run.load, capacity)
    assert set(run.came.kinds) == {ANSWERED, REFUSED}
    assert figures["refused"] > figures["accepted"] > 0
    assert run.came.ready.failed == 0 and run.came.ready.milliseconds
    shares = {aim["name"]: aim["measured"] for aim in figures["aims"]}
    # Far below what an idle machine shows: other tests take what they want of this one. A service that computes all
    # that comes answers nothing in time.
    assert shares["goodput_share_of_capacity"] > 0.05
    assert shares["accepted_in_time_share"] > 0.5
    assert np.median(run.came.took_ms[run.came.kinds == REFUSED]) < np.median(
        run.came.took_ms[run.came.kinds == ANSWERED]
    )


@pytest.mark.slow
def test_rows_in_flight_go_on_rising_when_a_pod_can_hold_no_more(runs: tuple[float, list[Run]]) -> None:
    """Rows that are in the service don't: their number is what the deadlines allow, at either load."""
    _, (less, more) = runs

    def inside(run: Run) -> float:
        return float(run.came.took_ms[run.came.kinds == ANSWERED].sum()) / 1e3 * ROWS / run.load.seconds

    assert all((run.came.kinds == REFUSED).any() for run in (less, more))
    assert more.in_flight > 1.5 * less.in_flight
    assert more.in_flight > 1.5 * inside(more)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="processes can't be kept to cores here")
def test_service_and_load_have_cores_of_their_own() -> None:
    before = os.sched_getaffinity(0)
    its, others = shared_out()
    assert its and others
    assert {*its, *others} <= before
    assert not {*its} & {*others} or len(before) == 1
    with pytest.raises(KeyboardInterrupt), kept_to(its):
        assert cores() == len(its)
        raise KeyboardInterrupt
    assert os.sched_getaffinity(0) == before


def test_every_aim_is_judged_by_its_own_figure() -> None:
    load = Load(rate=300, rows=1, deadline_ms=50, seconds=10)

    def came(**changes: object) -> Came:
        kinds = np.array([ANSWERED] * 1000 + [REFUSED] * 2000, dtype=object)
        took = np.array([40.0] * 1000 + [1.0] * 2000)
        good = {
            "took_ms": took, "late_ms": np.zeros(3000), "kinds": kinds, "cpu_share": 0.1,
            "ready": Seen([5.0] * 100), "stalls": Seen([0.1]),
        }  # fmt: skip
        return Came(**{**good, **changes})  # type: ignore[arg-type]

    def missed(run: Came, capacity: float = 100.0) -> list[str]:
        figures = judge(run, load, capacity)
        names = [aim["name"] for aim in figures["aims"] if not aim["met"]]
        assert figures["verdict"] == ("missed" if names else "met")
        return names

    good = came()
    assert missed(good) == []
    assert missed(good, capacity=120.0) == ["goodput_share_of_capacity"]
    late = np.where((np.arange(3000) < 2) & (good.kinds == ANSWERED), 51.0, good.took_ms)
    assert missed(came(took_ms=late)) == ["accepted_in_time_share"]
    slow = np.where((good.kinds == REFUSED) & (np.arange(3000) % 50 == 0), 6.0, good.took_ms)
    assert missed(came(took_ms=slow)) == ["refusals_p99_ms"]
    assert missed(came(ready=Seen([5.0] * 99 + [2000.0]))) == ["readyz_p999_ms"]
    assert missed(came(ready=Seen([5.0], failed=1))) == ["readyz_failed"]
    broken = np.where(np.arange(3000) == 2999, "no answer: ConnectionResetError", good.kinds)
    assert missed(came(kinds=broken)) == ["other_errors"]
    none = np.full(3000, REFUSED, dtype=object)
    assert missed(came(kinds=none)) == ["goodput_share_of_capacity", "accepted_in_time_share", "refusals_p99_ms"]


@pytest.mark.parametrize("limit", [3.0, 333.0])
def test_capacity_that_is_searched_is_the_services(limit: float) -> None:
    runs = Runs(Clockwork(limit), Slo(limit_ms=100))
    assert rate_of(search(runs, Effort(4.0, 1, 120.0)), "slow:v1", 100.0) == pytest.approx(limit, rel=2 * GAP)


@pytest.mark.parametrize("holds", [0.0, 5.0, 100.0])
def test_what_the_generator_holds_is_no_capacity_to_overload(holds: float) -> None:
    runs = Runs(Clockwork(333, generator=lambda rate, load: rate <= holds), Slo(limit_ms=100))
    found = search(runs, Effort(4.0, 1, 120.0))
    with pytest.raises(HoneError, match=r"^the load generator was the limit: .* the service holds: --capacity"):
        rate_of(found, "slow:v1", 100.0)
