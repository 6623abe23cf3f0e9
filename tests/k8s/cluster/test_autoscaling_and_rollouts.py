"""Pods that serve, under load: the real autoscaler, the real rollout, a pod that is killed.

The API server, controllers and scheduler are real, the manifests are those of `hone k8s render`, each pod is a real
`hone serve`, the metric is what a real Prometheus makes of its `/metrics`, and the load is that of `hone bench`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import numpy as np
import pytest

from tests import cluster

from .image import LIMIT_MS, ROW_S
from .stack import PEAK, Stack, running_stack

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]
FEWEST = 2
QUIET = 2.0
"""Requests per second that one pod would hold."""
STEADY_S = 8.0
REFUSED = {"status 503", "status 504"}
"""What a service says that has more to do than it can; anything else is a request that was lost."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if reason := cluster.missing():
        pytest.skip(reason)
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed")
    with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


def test_load_brings_pods_that_bring_the_latency_back_and_go_with_it(stack: Stack) -> None:
    stack.settle(FEWEST)
    seen = stack.kubelet.seen
    del seen[:]
    p99s: list[float] = []
    with stack.load(stack.balancer.ingress, PEAK) as load:

        def held() -> bool:
            until = load.now - 1.2 * LIMIT_MS / 1e3
            if until > STEADY_S:
                p99s.append(load.p99_ms(until - STEADY_S, until))
            return bool(p99s) and p99s[-1] <= LIMIT_MS and max(ready for ready, _ in seen) > FEWEST

        stack.wait(f"a p99 of {LIMIT_MS:g} ms at {PEAK} requests/s", held)
    assert max(p99s) > LIMIT_MS, "two pods held it: nothing was shown"
    most = max(ready for ready, _ in seen)
    assert most >= np.ceil(PEAK * ROW_S), "so many pods are needed to keep up with it at all"
    assert set(load.failed()) <= REFUSED
    with stack.load(stack.balancer.ingress, QUIET) as rest, stack.load(stack.balancer.service, QUIET) as kept:
        stack.settle(FEWEST)
    assert not rest.failed() and not kept.failed()
    assert min(ready for ready, _ in seen) >= FEWEST
    assert_ended_in_order(stack, most - FEWEST)


def test_rollout_under_load_fails_no_request(stack: Stack) -> None:
    """Neither through an ingress nor on connections that callers keep open through a Service."""
    stack.settle(FEWEST)
    (before,) = stack.served()
    (after,) = stack.images.keys() - {before}
    seen = stack.kubelet.seen
    del seen[:], stack.kubelet.ends[:]
    with stack.load(stack.balancer.ingress, 2 * QUIET) as load, stack.load(stack.balancer.service, 2 * QUIET) as kept:
        stack.wait("some answers", lambda: min(len(load.records()), len(kept.records())) > 10)
        stack.deploy(stack.images[after])
        stack.wait("the new pods alone", lambda: stack.served() == {after})
        stack.settle(FEWEST)
        answered = [len(load.records()), len(kept.records())]
        stack.wait("answers of the new pods", lambda: len(load.records()) > answered[0] + 10)
    assert not load.failed() and not kept.failed()
    assert min(answered) > 50
    assert min(ready for ready, _ in seen) >= FEWEST
    assert_ended_in_order(stack, FEWEST)


def test_killed_pod_loses_what_it_had_and_nothing_else(stack: Stack) -> None:
    stack.settle(FEWEST)
    stack.balancer.lost.clear()
    retried = stack.balancer.retried
    with stack.load(stack.balancer.ingress, 2 * QUIET) as load:
        stack.wait("some answers", lambda: len(load.records()) > 20)
        address, in_flight = stack.balancer.busiest()
        life = stack.kubelet.lives[stack.kubelet.name_of(address)]
        restarts = life.restarts
        life.kill()
        stack.wait("a restart", lambda: life.restarts > restarts and life.ready)
        stack.settle(FEWEST)
        ended = len(load.records())
        stack.wait("answers of both", lambda: len(load.records()) > ended + 20)
    lost = stack.balancer.lost
    assert set(lost) <= {address}, "a pod that lives lost a request"
    assert load.failed() == ({"status 502": lost[address]} if lost else {})
    # What it had at the kill, and what was on its way to it.
    assert lost[address] <= in_flight + 3
    assert stack.balancer.retried > retried, "nobody was sent to the dead pod: nothing was shown"


def assert_ended_in_order(stack: Stack, fewest: int) -> None:
    """Pods that were told to go drained within their grace, by themselves."""
    assert len(stack.kubelet.ends) >= fewest
    assert [end for end in stack.kubelet.ends if end[1:] != (0, False)] == []
