"""`hone bench compare` with two real services, and with turns that end early."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from hone.benchmarks.compare.at_once import Places, window_of
from hone.benchmarks.compare.records import FIGURES, Comparison
from hone.benchmarks.compare.turns import ORDERS, SIDES, StoppedError, compare, ratios, take_turns
from hone.benchmarks.compare.verdict import AtOnce, verdict_of
from hone.benchmarks.load.sending.plan import RECORDS
from hone.benchmarks.load.target import Access, Target
from hone.benchmarks.scenarios import Scenario
from hone.cli.comparing import compare as compare_command
from hone.errors import HoneError
from hone.signature import Signature
from tests.benchmarks.small_service import running
from tests.models.dense import dense_signature
from tests.servers import HONE, ROOT


def command(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HONE, "bench", "compare", *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_service_that_takes_twice_as_long_is_slower(tmp_path: Path) -> None:
    with running(tmp_path, 0.02) as a, running(tmp_path, 0.04) as b:
        done = command(a, b, "--model", "dense", "--turns", "6", "--duration", "1", "--users", "2", folder=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "turn 6 of 6" in done.stderr
    assert "B is slower: p50_ms +" in done.stdout
    found = Comparison.model_validate_json((tmp_path / "out" / "dense" / "compare.json").read_bytes())
    assert found.ratio.ratio == pytest.approx(2, rel=0.4)
    assert found.ratio.control[0] <= 1 <= found.ratio.control[1]
    assert {tuple(turn.order) for turn in found.turns} == set(ORDERS)
    assert [ratio.figure for ratio in found.ratios] == list(FIGURES)
    assert all(turn.a["cpu_ms"] > 0 for turn in found.turns)


def target(port: int = 9, signature: Signature | None = None) -> Target:
    return Target(f"http://127.0.0.1:{port}", Access(), "dense", "v1", None, "/models/dense",
                  signature or dense_signature(), {})  # fmt: skip


def steady(side: str, turn: int) -> dict[str, float]:
    return dict.fromkeys(FIGURES, (2.0 if side == "b" else 1.0) + 0.001 * ((turn * 7 + SIDES.index(side)) % 5))


def test_orders_change_so_that_no_side_is_always_first() -> None:
    turns = take_turns(steady, 12)
    assert all(sum(turn.order[place] == side for turn in turns) == 4 for place in range(3) for side in SIDES)
    assert {ratio.verdict for ratio in ratios(turns)} == {"slower"}


def test_ctrl_c_keeps_the_turns_that_were_done() -> None:
    def stopped(at: int) -> list[object]:
        def until(side: str, turn: int) -> dict[str, float]:
            if turn == at:
                raise KeyboardInterrupt
            return steady(side, turn)

        return list(take_turns(until, 20))

    assert len(stopped(8)) == 8
    with pytest.raises(StoppedError, match="interrupted after 3 turns; nothing can be said from under 6") as error:
        stopped(3)
    assert error.value.exit_code == 130


def test_services_that_cannot_be_compared_are_refused_before_the_load(tmp_path: Path) -> None:
    (spec,) = dense_signature().inputs
    other = Signature(inputs=(spec.model_copy(update={"shape": ("batch", 5)}),), outputs=dense_signature().outputs)
    out, scenario = tmp_path / "compare.json", Scenario(kind="closed", users=1, duration_s=1)
    with pytest.raises(HoneError, match="take different inputs"):
        compare(target(), target(signature=other), scenario, out=out, turns=6)
    with pytest.raises(HoneError, match="--turns 3: nothing can be said from under 6"):
        compare(target(), target(), scenario, out=out, turns=3)


def test_work_of_a_service_elsewhere_is_not_compared(tmp_path: Path) -> None:
    out, scenario = tmp_path / "compare.json", Scenario(kind="closed", users=1, duration_s=1)
    with pytest.raises(HoneError, match=r"--by cpu: no processes of http://127\.0\.0\.1:9 are seen on this host"):
        compare(target(), target(), scenario, out=out, turns=6, by="cpu_ms")
    seen = [{**steady(side, 0)} for side in SIDES]
    del seen[1]["cpu_ms"]
    turns = take_turns(lambda side, turn: seen[SIDES.index(side)], 6)
    assert [ratio.figure for ratio in ratios(turns)] == [figure for figure in FIGURES if figure != "cpu_ms"]


def test_service_that_dies_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    out, scenario = tmp_path / "compare.json", Scenario(kind="closed", users=1, duration_s=1, warm_up_s=0)
    with pytest.raises(HoneError, match=r"^http://127\.0\.0\.1:9: 100% of the requests to dense:v1 failed in a turn"):
        compare(target(), target(), scenario, out=out, turns=6)
    assert not out.exists()


def test_address_where_nothing_listens_is_said(tmp_path: Path) -> None:
    done = command("http://127.0.0.1:9", "http://127.0.0.1:9", folder=tmp_path)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "no service answers" in done.stderr


def test_result_says_what_it_could_not_have_seen() -> None:
    def even(side: str, turn: int) -> dict[str, float]:
        return dict.fromkeys(FIGURES, 1.0 + 0.02 * ((turn * 7 + 3 * SIDES.index(side)) % 5))

    turns = take_turns(even, 12)
    side = {"model": "dense:v1", "digest": None, "url": "http://h"}
    found = Comparison.model_validate(
        {"created": "now", "host": {}, "a": side, "b": side, "scenario": Scenario(), "by": "p50_ms",
         "turns": turns, "ratios": ratios(turns)}
    )  # fmt: skip
    assert "can't tell: by p50_ms, a difference under" in found.summary()
    assert json.loads(found.model_dump_json())["kind"] == "comparison"


def rounds_of(seed: int, change: float) -> list[np.ndarray]:
    """Return windows of eight rounds: processes differ by 1.7 %, windows by 4.5 %, as on two busy cores."""
    random = np.random.default_rng(seed)
    return [random.normal(np.log1p(change) + random.normal(0, 0.017), 0.045, 20) for _ in range(8)]


def test_at_once_a_twentieth_is_found_in_eight_rounds_and_nothing_where_nothing_is() -> None:
    for change, verdict in ((0.05, "slower"), (-0.05, "faster")):
        said = [verdict_of(rounds_of(seed, change))[1] for seed in range(100)]
        assert said.count(verdict) >= 90
        assert said.count("can't tell") == 100 - said.count(verdict)
    assert [verdict_of(rounds_of(seed, 0.0))[1] for seed in range(100)].count("can't tell") >= 95


def test_at_once_two_processes_differ_and_few_of_them_say_nothing() -> None:
    logs = np.random.default_rng(0).normal(0.04, 0.05, 200)
    assert verdict_of([logs])[1] == "can't tell"  # they may be two of the same service
    assert verdict_of([logs + 0.04])[1] == "slower"
    assert verdict_of([logs + 0.4] * 3)[1] == "can't tell"


def test_window_counts_what_was_answered_in_it() -> None:
    records = np.zeros(6, RECORDS)
    records["ended"] = [0.5, 1.5, 1.6, 1.7, 2.0, 2.5]
    records["sender"] = [0, 0, 1, 1, 1, 0]
    records["error"] = [0, 0, 0, 1, 0, 0]
    window = window_of((1.0, 5.0, 7.0), (2.0, 5.1, 7.4), records)
    assert window.requests == (1, 2)
    assert window.cpu_ms == pytest.approx((100, 200))
    assert window.log_ratio == pytest.approx(np.log(2))


@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="takes two cores")
def test_services_change_places_and_get_their_cores_back() -> None:
    sleepers = [subprocess.Popen(["sleep", "60"]) for _ in range(2)]
    families = [[psutil.Process(sleeper.pid)] for sleeper in sleepers]

    def cores() -> list[set[int]]:
        return [os.sched_getaffinity(sleeper.pid) for sleeper in sleepers]

    try:
        before = cores()
        with Places(*families) as places:
            places.change()
            first, second = cores()
            assert first and second and not first & second
            places.change()
            assert cores() == [second, first]
        assert cores() == before
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


@pytest.mark.slow
def test_service_that_works_more_is_slower_at_once(tmp_path: Path) -> None:
    with running(tmp_path, 0.0) as a, running(tmp_path, 0.0, work_s=0.004) as b:
        done = command(a, b, "--model", "dense", "--at-once", "--rate", "50", "--minutes", "1", folder=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "B is slower: cpu +" in done.stdout
    found = AtOnce.model_validate_json((tmp_path / "out" / "dense" / "compare.json").read_bytes())
    assert found.low > 1
    assert all(min(window.requests) > 0 for window in found.windows)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--at-once", "--turns", "6"], "--turns is of turns; --at-once takes --minutes and --rate"),
        (["--at-once", "--by", "p99"], "--at-once compares by cpu, not by p99"),
        (["--minutes", "1"], "--minutes is how long --at-once may take"),
    ],
)
def test_options_of_one_way_to_compare_are_refused_with_the_other(options: list[str], words: str) -> None:
    done = CliRunner().invoke(compare_command, ["http://127.0.0.1:9", "http://127.0.0.1:9", *options])
    assert done.exit_code == 2
    assert words in done.output
