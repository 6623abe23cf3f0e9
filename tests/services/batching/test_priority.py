from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from hone.services.batching.priority import run_behind

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")


def own() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def own_and_a_childs() -> list[int]:
    found = [own()]
    child = threading.Thread(target=lambda: found.append(own()))
    child.start()
    child.join()
    return found


@pytest.mark.parametrize(("levels", "lower"), [(0, 0), (3, 3), (19, 19)])
def test_what_runs_behind_and_what_it_starts_is_of_lower_priority_and_nobody_else(levels: int, lower: int) -> None:
    before = own()
    lowest = min(19, before + lower)
    assert asyncio.run(run_behind(levels, own_and_a_childs)) == [lowest, lowest]
    assert own_and_a_childs() == [before, before]


def test_a_failure_behind_is_the_callers() -> None:
    with pytest.raises(ZeroDivisionError):
        asyncio.run(run_behind(1, lambda: 1 // 0))
