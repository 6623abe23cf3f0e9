from __future__ import annotations

import asyncio
import fcntl
import multiprocessing
import os
import resource
import signal
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from hone.errors import HoneError
from hone.services.access.callers import Caller, RateLimitedError
from hone.services.access.gate import ANYBODY, OpenGate
from hone.services.access.rates import BUCKETS, SLOTS, RateLimiter, RateTable, allowance, caller_key

SPAWN = multiprocessing.get_context("spawn")


@pytest.mark.parametrize("rate", [0.1, 1.0, 3.0, 1000.0])
def test_as_many_at_once_as_a_second_brings_then_at_the_rate(rate: float) -> None:
    now, whole_at, passed = 50.0, 0.0, 0
    while True:
        whole_at, wait = allowance(whole_at, now, rate)
        if wait:
            break
        passed += 1
    assert passed == max(1, int(rate))
    assert wait == pytest.approx(1 / rate)
    assert allowance(whole_at, now + wait, rate)[1] == 0.0
    assert allowance(whole_at, now + wait / 2, rate)[1] == pytest.approx(wait / 2)


def test_clock_that_went_backwards_costs_at_most_one_allowance() -> None:
    table = RateTable()
    key = caller_key("ann")
    assert table.take(key, 2.0, 1e6) == 0.0
    waits = [table.take(key, 2.0, 10.0 + step / 10) for step in range(30)]
    assert waits[0] > 0.0
    assert waits.count(0.0) == 5  # in three seconds, starting with nothing


def _take(file: Path, start: Event, count: int, passed: multiprocessing.Queue[int]) -> None:
    table = RateTable(file)
    start.wait()
    passed.put(sum(table.take(caller_key("ann"), 1000.0, 5.0) == 0.0 for _ in range(count)))


def test_workers_share_an_allowance(tmp_path: Path) -> None:
    start, passed = SPAWN.Event(), SPAWN.Queue()
    workers = [SPAWN.Process(target=_take, args=(tmp_path / "rates", start, 2000, passed)) for _ in range(3)]
    for worker in workers:
        worker.start()
    start.set()
    counts = [passed.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    # The clock stands still, so one allowance may pass, where three that don't share would let 3000. A decision without
    # the lock, which nobody waits for long, can add some: here every request fights for the same one, and on a busy
    # host the one who holds it may be off its core meanwhile.
    assert 1000 <= sum(counts) <= 1500
    assert (tmp_path / "rates").stat().st_mode & 0o777 == 0o600


def _hold(file: Path, held: Event) -> None:
    handle = os.open(file, os.O_RDWR)
    fcntl.lockf(handle, fcntl.LOCK_EX)
    held.set()
    time.sleep(600)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_worker_that_dies_or_stops_with_a_lock_delays_nobody(tmp_path: Path, how: signal.Signals) -> None:
    file, held = tmp_path / "rates", SPAWN.Event()
    table = RateTable(file)
    worker = SPAWN.Process(target=_hold, args=(file, held))
    worker.start()
    assert held.wait(60)
    assert worker.pid is not None
    os.kill(worker.pid, how)
    started = time.monotonic()
    waits = [table.take(caller_key("ann"), 5.0, 1.0) for _ in range(10)]
    assert [wait == 0.0 for wait in waits] == [True] * 5 + [False] * 5
    assert time.monotonic() - started < 5
    worker.kill()
    worker.join()


def test_full_table_forgets_those_who_have_most_left() -> None:
    table = RateTable()
    same = [bucket * BUCKETS for bucket in range(1, SLOTS + 2)]
    for key in same[:SLOTS]:
        for _ in range(3 if key != same[2] else 1):
            assert table.take(key, 3.0, 9.0) == 0.0
    assert table.take(same[-1], 3.0, 9.0) == 0.0  # takes the place of the one that has used one of three
    assert all(table.take(key, 3.0, 9.0) > 0.0 for key in same[:SLOTS] if key != same[2])


def _make(file: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        RateTable(file)
    except HoneError as error:
        raise SystemExit(7 if "rates: rate limits can't be kept there" in str(error) else 8) from None


def test_full_disk_is_told_when_the_table_is_made_not_by_a_crash_later(tmp_path: Path) -> None:
    worker = SPAWN.Process(target=_make, args=(tmp_path / "rates",))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 7


def test_default_is_for_callers_without_a_limit_of_their_own() -> None:
    limiter = RateLimiter(RateTable(), default_per_s=1.0, clock=lambda: 3.0)
    bob, ann = Caller("bob", frozenset()), Caller("ann", frozenset(), 3.0)
    assert limiter.take_now(bob)
    with pytest.raises(RateLimitedError, match="over the limit of 1 requests a second") as caught:
        limiter.take_now(bob)
    assert caught.value.headers == (("retry-after", "1"),)
    for _ in range(3):
        assert limiter.take_now(ann)
    with pytest.raises(RateLimitedError, match="limit of 3"):
        limiter.take_now(ann)


def test_without_keys_the_limit_is_everybodys() -> None:
    gate = OpenGate(RateLimiter(RateTable(), default_per_s=2.0, clock=lambda: 3.0))
    for _ in range(2):
        asyncio.run(gate.admit(b"", b"", "predict"))
    with pytest.raises(RateLimitedError):
        asyncio.run(gate.admit(b"", b"", "predict"))
    assert ANYBODY.scopes == frozenset()
