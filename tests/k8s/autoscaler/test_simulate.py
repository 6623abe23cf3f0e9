"""The simulation: load as a fluid, metrics as they are scraped, and what follows from them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.errors import HoneError
from hone.k8s.autoscaler.fleet import QUEUE_ROWS, Cohort, Fleet, Load
from hone.k8s.autoscaler.hpa.behavior import Past, normalize, remember_change
from hone.k8s.autoscaler.hpa.calculator import Pods, Sample, Tolerances, of_request, of_value
from hone.k8s.autoscaler.hpa.flags import Flags
from hone.k8s.autoscaler.hpa.spec import Autoscaler, Policy, Rules, parse_autoscaler
from hone.k8s.autoscaler.pod import Pod
from hone.k8s.autoscaler.reaction import reaction
from hone.k8s.autoscaler.search import search
from hone.k8s.autoscaler.sight import Scraping, Sight
from hone.k8s.autoscaler.simulate import Run, Setting, at_rest, simulate
from hone.k8s.autoscaler.trace import SHAPES, Trace, shape
from hone.k8s.numbers import autoscaler_of

POD = Pod(capacity_rps=100, latency_s=0.05, cpu_cores=0.8, start_s=20)
ITEM = autoscaler_of(None)
FLAGS = [Flags(), Flags(release=(1, 20))]


def autoscaler(minimum: int = 2, maximum: int = 10, components: tuple[str, ...] = ()) -> Autoscaler:
    item = autoscaler_of(None, components)
    item["spec"] |= {"minReplicas": minimum, "maxReplicas": maximum}
    return parse_autoscaler(item, "the test")


def run(trace: Trace, **changes: int) -> Run:
    return simulate(Setting(POD, autoscaler(**changes)), trace)


pods = st.builds(
    Pods,
    count=st.integers(1, 20),
    phase=st.sampled_from(["Running", "Pending"]),
    ready=st.booleans(),
    changed=st.floats(-400, 0),
    started=st.floats(-400, -1),
    request=st.just(1000),
    sample=st.one_of(st.none(), st.builds(Sample, st.integers(0, 3000), st.floats(-30, 0), st.just(15.0))),
)


def louder(before: Sequence[Pods], by: int) -> list[Pods]:
    return [
        Pods(each.count, each.phase, each.ready, each.changed, each.started, each.deleted, each.request,
             each.sample and Sample(each.sample.value + by, each.sample.at, each.sample.window_s))
        for each in before
    ]  # fmt: skip


@given(
    st.lists(pods, min_size=1, max_size=6), st.integers(0, 2000), st.floats(0, 0.5), st.floats(0, 0.5), st.booleans()
)
def test_more_load_never_asks_for_fewer_replicas(
    there: list[Pods], by: int, down: float, up: float, of_cpu: bool
) -> None:
    """At the same state: as many pods as are wanted, and every sample is larger."""
    if not any(each.sample and each.phase == "Running" and each.ready and each.changed < -45 for each in there):
        return  # No sample counts.
    current = sum(each.count for each in there)
    of_pods, target = (of_request, 60) if of_cpu else (of_value, 600)
    quiet, loud = (
        of_pods(current, target, each, Tolerances(down, up), cpu=True, now=0, flags=Flags()).replicas
        for each in (there, louder(there, by))
    )
    assert quiet <= loud


policy = st.builds(
    Policy, st.sampled_from(["Pods", "Percent"]), st.integers(1, 200), st.sampled_from([15, 30, 60, 120])
)


@given(policy, policy, st.lists(st.integers(0, 300), min_size=1, max_size=60), st.integers(1, 100))
def test_replicas_change_no_faster_than_their_policies_and_stay_within_bounds(
    up: Policy, down: Policy, proposals: list[int], first: int
) -> None:
    """Against the number that there was when the policy's period began."""
    scaler = Autoscaler(1, 200, (), Rules(0, "Max", (up,)), Rules(0, "Max", (down,)))
    past, replicas = Past(), [first]
    for turn, proposed in enumerate(proposals):
        now = 15.0 * turn
        found = normalize(scaler, Flags(), past, replicas[-1], proposed, 1, now).replicas
        if found != replicas[-1]:
            remember_change(scaler, past, replicas[-1], found, now)
        replicas.append(found)
        assert 1 <= found <= 200
        for rule, sign in ((up, 1), (down, -1)):
            begin = replicas[max(0, turn + 1 - rule.period_s // 15)]
            step = rule.value if rule.kind == "Pods" else begin * rule.value / 100
            if sign * (found - replicas[-2]) > 0:
                assert sign * (found - begin) <= step + 1  # Rounded up, or as its floating-point number is cut.


def test_constant_load_changes_nothing() -> None:
    found = run(shape("constant", 300, 300))
    assert {step.desired for step in found.steps} == {at_rest(POD, autoscaler(), 300)} == {4}
    assert found.violation_minutes == 0
    assert found.pod_hours == pytest.approx(4)


def test_step_is_answered_by_a_third_more_each_time_a_start_is_over() -> None:
    """80 % busy for a target of 60 %; new pods count once they are ready and have a sample of their own."""
    found = run(shape("step", 150, 750), maximum=20)
    assert list(dict.fromkeys(step.desired for step in found.steps))[:4] == [2, 3, 4, 6]
    before = [step for step in found.steps if step.t < 900]
    assert not any(step.violating for step in before)
    outside = [step.t for step in found.steps if step.violating]
    assert outside[0] == 900
    assert len(outside) == (outside[-1] - 900) / 15 + 1
    assert found.steps[-1].ready * POD.capacity_rps >= 750


@pytest.mark.parametrize("name", SHAPES)
def test_every_step_is_violating_when_more_arrives_than_ready_pods_hold(name: str) -> None:
    found = run(shape(name, 150, 900))
    for step in found.steps:
        if step.rate > step.ready * POD.capacity_rps * (1 + 1e-9):
            assert step.violating or step.desired > step.ready  # Pods that turned ready within the step held it.
    assert found.violation_minutes * 4 == sum(step.violating for step in found.steps)


def test_rows_in_flight_see_a_step_that_the_processor_cannot_show() -> None:
    """A processor that is busy at 80 % of its request can't show more than 1.33 times its target of 60 %."""
    setting = Setting(POD, autoscaler(maximum=20))
    both = Setting(POD, autoscaler(maximum=20, components=("in-flight-hpa",)))
    trace = shape("step", 150, 750)
    assert simulate(both, trace).violation_minutes < simulate(setting, trace).violation_minutes


def test_maximum_that_is_too_small_is_said_in_minutes() -> None:
    found = run(shape("step", 150, 1500))
    assert found.limited_minutes > 30
    assert found.shed_share > 0.1
    assert max(step.desired for step in found.steps) == 10


def test_a_day_of_a_thousand_pods() -> None:
    """5,760 turns, 86,400 seconds of up to 100,000 requests."""
    found = simulate(Setting(POD, autoscaler(10, 1500)), shape("day", 20_000, 100_000))
    assert len(found.steps) == 5760
    assert 1000 <= max(step.desired for step in found.steps) <= 1500
    assert found.violation_minutes == 0


rates = st.lists(st.floats(0.1, 1000), min_size=1, max_size=40)


@given(rates, st.lists(st.integers(0, 8), min_size=1, max_size=8))
def test_what_arrives_is_answered_refused_or_waits(arrivals: list[float], ready: list[int]) -> None:
    load = Load.of(np.array(arrivals), 1.0)
    answered = 0.0
    for tick in range(len(arrivals)):
        count = ready[tick % len(ready)]
        load.advance(tick, tick + 1, count, POD)
        answered += (load.requests[tick + 1] - load.requests[tick]) * count
        assert load.waiting <= count * QUEUE_ROWS + 1e-6
    assert answered + load.shed.sum() + load.waiting == pytest.approx(sum(arrivals), rel=1e-6, abs=1e-3)


@given(rates, st.integers(1, 12))
def test_many_ticks_at_once_are_the_same_as_one_by_one(arrivals: list[float], ready: int) -> None:
    whole, single = (Load.of(np.array(arrivals), 1.0) for _ in range(2))
    whole.advance(0, len(arrivals), ready, POD)
    for tick in range(len(arrivals)):
        single.advance(tick, tick + 1, ready, POD)
    for name in ("cpu_s", "row_s", "requests", "outside", "shed"):
        np.testing.assert_allclose(getattr(whole, name), getattr(single, name), rtol=1e-9, atol=1e-9)


def test_fleet_takes_away_the_newest() -> None:
    fleet = Fleet(POD, 3)
    fleet.resize(5, 100)
    assert (fleet.count, fleet.ready(119), fleet.ready(120)) == (5, 3, 5)
    fleet.resize(8, 200)
    fleet.resize(4, 210)
    assert (fleet.count, fleet.ready(210)) == (4, 4)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_rates_are_those_of_prometheus(tmp_path: Path) -> None:
    """The same counter, scraped at the same times, asked of Prometheus' own engine.

    Never at the very moment of a scrape: releases differ in whether a window's begin belongs to it.
    """
    arrivals = np.array([40 + 30 * np.sin(t / 17) for t in range(300)])
    load = Load.of(arrivals, 1.0)
    load.advance(0, 300, 1, POD)
    sight = Sight(load, POD, Scraping(15, 0, 60), 0)
    series, asked = [], []
    for number, ready_at in enumerate((-1e9, 3, 50, 118, 200)):
        cohort = Cohort(1, ready_at, ready_at)
        sums = [(t, sight._between(load.row_s, cohort, ready_at, t)) for t in range(0, 300, 15)]
        values = [f"{value:.9f}" if t >= ready_at else "_" for t, value in sums]
        series.append({"series": f'rows{{pod="{number}"}}', "values": " ".join(values)})
        for now in (62, 67.5, 119, 127, 209, 216, 290):
            rate = sight.rate(load.row_s, cohort, now)
            expected = [] if rate is None else [{"labels": f'{{pod="{number}"}}', "value": round(rate, 6)}]
            query = {"expr": f'round(rate(rows{{pod="{number}"}}[1m]), 1e-6)', "eval_time": f"{int(now * 1000)}ms"}
            asked.append({**query, "exp_samples": expected})
    assert sum(bool(each["exp_samples"]) for each in asked) > 20
    (tmp_path / "rules.yaml").write_text("groups: []\n")
    file = tmp_path / "test.yaml"
    tests = [{"interval": "15s", "input_series": series, "promql_expr_test": asked}]
    file.write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "15s", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@settings(max_examples=3, deadline=None)
@given(st.sampled_from(["step", "burst", "ramp"]), st.sampled_from([1.0, 3.0, 6.0]))
def test_search_keeps_its_budget_with_no_more_pods_than_all(name: str, budget: float) -> None:
    trace = shape(name, 150, 700)
    setting = Setting(POD, autoscaler())
    found = search(setting, ITEM, trace, budget)
    again = simulate(Setting(POD, parse_autoscaler(found.item, "found")), trace)
    assert again == found.run
    assert found.run.violation_minutes <= budget
    assert found.run.pod_hours <= 10


def test_budget_that_cannot_be_kept_is_refused_with_the_reason() -> None:
    with pytest.raises(HoneError, match=r"--budget: 1 minutes can't be kept: .*maxReplicas 10 hold 1,000 of 2,000"):
        search(Setting(POD, autoscaler()), ITEM, shape("step", 150, 2000), 1)


def test_reaction_names_every_link_and_simulates_a_step() -> None:
    links = {link.name: link for link in reaction(POD, autoscaler(maximum=20), Flags(), Scraping())}
    assert list(links)[:-1] == ["scrape", "turn", "tolerance", "window upward", "policy", "start"]
    assert links["policy"].value == "the larger of 100 % in 30 s or 2 pods in 30 s"
    step = links["150 to 750 requests/s"]
    assert step.value.endswith("s outside the SLO")
    assert "2 → 3 → 4 → 6 → 8" in step.why
    (*_, held) = reaction(POD, autoscaler(maximum=4), Flags(), Scraping())
    assert (held.value, held.why) == ("never holds", "simulated; maxReplicas 4 hold 400")


def test_tolerance_of_ones_own_counts_where_the_release_knows_it() -> None:
    """Load that is 7 % above the target: more pods from 1.35 on, none before."""
    item = autoscaler_of(None, (), (1, 35))
    item["spec"]["maxReplicas"] = 50
    trace = Trace(0.0, 15.0, np.concatenate((np.full(20, 1500.0), np.full(60, 1610.0))))
    for release, more in (((1, 35), True), ((1, 32), False)):
        setting = Setting(POD, parse_autoscaler(item, "the test"), Flags(release=release))
        steps = simulate(setting, trace).steps
        assert (steps[-1].desired > steps[0].desired) == more
