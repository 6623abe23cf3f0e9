"""The search of serving settings: its candidates, its trials and what it writes, without services."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from hone.benchmarks.capacity.kept import Content, Kept
from hone.benchmarks.capacity.search import Effort
from hone.benchmarks.reports.tuning import write_tuning_report
from hone.benchmarks.tuned import UNTRIED, Choice, Cost, Prices, Tried, Tuning
from hone.benchmarks.tuning.candidates import candidates, variants
from hone.benchmarks.tuning.elimination import Visit, front
from hone.benchmarks.tuning.trials import Question, Request, Trials
from hone.benchmarks.tuning.visit import Visits, settings_of
from hone.capacity import Slo
from hone.cli.main import cli
from hone.errors import HoneError
from hone.records import read_record
from tests.plans import plan
from tests.servers import put

SLO = Slo(limit_ms=50)


def test_candidates_are_what_cores_and_model_allow_the_services_own_choice_first(tmp_path: Path) -> None:
    put(tmp_path, tmp_path / "a", "dense", "onnx-fp32-1")
    entries, left_out = variants("dense")
    assert left_out == []
    found = candidates(entries, rows=1, most=4)
    assert found[0] == Choice(model="dense:onnx-fp32-1")
    given = found[1:]
    assert len(set(given)) == len(given)
    assert all(choice.workers * choice.threads * choice.in_flight <= 4 for choice in given)
    assert {choice.max_batch_rows for choice in given} == {1, 8, 64}
    assert {(choice.workers, choice.threads, choice.in_flight) for choice in given} == {
        (1, 1, 1), (1, 1, 2), (1, 1, 4), (1, 2, 1), (1, 2, 2), (1, 4, 1), (2, 1, 1), (2, 1, 2), (2, 2, 1), (4, 1, 1),
    }  # fmt: skip
    first = given[0]
    assert first.workers * first.threads * first.in_flight == 4
    assert {choice.workers for choice in candidates(entries, rows=1, workers=2, most=4)} == {2}
    assert {choice.max_batch_rows for choice in candidates(entries, rows=32, most=4)[1:]} == {64}
    assert {choice.max_batch_rows for choice in candidates(entries, rows=100, most=4)[1:]} == {100}


def test_variants_are_those_of_the_newest_run_in_turns(tmp_path: Path) -> None:
    for number, run in ((1, "20260101-000000-0000"), (2, "20260201-000000-0000"), (3, "20260201-000000-0000")):
        put(tmp_path, tmp_path / str(number), "dense", f"v{number}-1", variant=f"v{number}", run=run)
    found = candidates(variants("dense")[0], rows=1, most=2)
    assert {choice.model for choice in found} == {"dense:v2-1", "dense:v3-1"}
    assert len({choice.model for choice in found[:2]}) == 2
    assert {choice.model for choice in candidates(variants("dense:v1")[0], rows=1)} == {"dense:v1-1"}


def test_candidate_runs_again_as_it_ran_the_first_time() -> None:
    choice = Choice(model="dense:v1", workers=2, threads=1, in_flight=1, max_batch_rows=8)
    assert settings_of(choice, None) == {"workers": 2, "threads": 1, "in_flight": 1, "max_batch_rows": 8, "plan": ""}
    again = settings_of(choice, plan(workers=2))
    assert (again["workers"], again["max_batch_rows"]) == (2, 32)
    assert '"max_batch_rows":32' in str(again["plan"])


class Known(Visits):
    """Candidates whose rates are known: the more workers the more; some don't start, and Ctrl-C may come."""

    loads = 0
    ends_at = 10_000

    def __call__(self, candidate: int, seconds: float) -> Visit:
        if self.loads == self.ends_at:
            raise KeyboardInterrupt
        self.loads += 1
        choice = self.choices[candidate]
        if choice.max_batch_rows == 8:
            return Visit(candidate=candidate, asked_s=seconds, took_s=3.0, out="the service did not become ready: no")
        rate = 100.0 * choice.workers * (1 + 0.02 * (self.loads % 3))
        ran = plan(workers=choice.workers, threads=max(choice.threads, 1), max_batch_rows=choice.max_batch_rows or 64)
        cost = Cost(cores=choice.workers, memory_mb=100.0 * choice.workers)
        return Visit(candidate=candidate, asked_s=seconds, took_s=seconds + 5, rate=rate, cost=cost, plan=ran)


CHOICES = [
    Choice(model="dense:v1"),
    *(Choice(model="dense:v1", workers=workers, threads=1, in_flight=1, max_batch_rows=size)
      for size in (64, 8) for workers in (1, 2)),
    Choice(model="dense:v1", workers=1, threads=2, in_flight=1, max_batch_rows=64),
]  # fmt: skip


def trials(folder: Path, said: list[str], ends_at: int = 10_000, minutes: float = 30.0) -> tuple[Trials, Known]:
    request = Request("dense", SLO, effort=Effort(5.0, 1, minutes * 60))
    question = Question(choices=CHOICES, digests=[], host={}, slo=SLO, rows=1, duration_s=5.0, most_late=0.05)
    visits = Known(CHOICES, SLO)
    visits.ends_at = ends_at
    kept = Kept(folder / "tune.json", question, Content[Question, Visit])
    return Trials(CHOICES, request, kept, said.append, visits), visits


def test_candidate_that_fails_or_runs_as_another_is_out_with_one_line(tmp_path: Path) -> None:
    said: list[str] = []
    searched, _ = trials(tmp_path, said)
    remaining = searched.search()
    assert remaining.out[3] == remaining.out[4] == "the service did not become ready: no"
    assert remaining.out[1] == f"runs as {CHOICES[0].words}"
    assert any("1 worker x 1 thread, 1 in flight, 8 rows: out: the service did not become ready: no" in s for s in said)
    assert set(remaining.alive) <= {0, 2, 5}
    assert 2 in remaining.alive
    assert all("left" in line for line in said[1:])


def test_time_that_is_too_short_for_all_is_said(tmp_path: Path) -> None:
    searched, visits = trials(tmp_path, [], minutes=1.0)
    remaining = searched.search()
    assert "not tried: the time was too short; give more --minutes" in remaining.out.values()
    assert remaining.alive
    assert sum(remaining.seconds) > 0
    assert visits.loads < len(CHOICES)


def test_interrupted_search_goes_on_from_its_trials(tmp_path: Path) -> None:
    whole, all_visits = trials(tmp_path / "whole", [])
    expected = whole.search()
    with pytest.raises(
        HoneError, match=r"interrupted; 7 trials are kept in .*tune.json.partial, the same comm"
    ) as ended:
        stopped = trials(tmp_path, [], ends_at=7)[0]
        with stopped.kept.told():
            stopped.search()
    assert ended.value.exit_code == 130
    said: list[str] = []
    rest, visits = trials(tmp_path, said)
    visits.loads = 7
    assert rest.search() == expected
    assert visits.loads == all_visits.loads
    assert "going on from 7 trials" in "".join(said)


def test_front_is_what_nothing_beats() -> None:
    rates = {0: 100.0, 1: 200.0, 2: 150.0, 3: 99.0, 4: 90.0, 5: 100.0}
    costs = {0: (1.0, 300.0), 1: (2.0, 300.0), 2: (2.0, 300.0), 3: (1.0, 300.0), 4: (1.0, 100.0), 5: (1.0, 310.0)}
    assert front(rates, costs) == [1, 0, 4]


def tuning(prices: Prices) -> Tuning:
    small, large, bad = CHOICES[1], CHOICES[2], CHOICES[3]
    costs = Cost(cores=1.0, memory_mb=100.0), Cost(cores=2.0, memory_mb=200.0)
    tried = [
        Tried(choice=small, plan=plan(), rates=[100.0], rate=100.0, cost=costs[0],
              price_per_hour=costs[0].price(prices), proven=90.0, capacity=95.0),
        Tried(choice=large, plan=plan(workers=2), rates=[150.0], rate=150.0, cost=costs[1],
              price_per_hour=costs[1].price(prices), proven=140.0, capacity=145.0),
        Tried(choice=bad, out="the service <died>"),
    ]  # fmt: skip
    return Tuning(
        model="dense", created="2026-01-01T00:00:00+00:00", host={"cpu": "x", "cores": 2}, command="hone", slo=SLO,
        rows=1, prices=prices, seconds=[5.0, 5.0], took_s=60.0, tried=tried, winner=1,
    )  # fmt: skip


def test_table_and_page_show_the_front_the_winner_and_what_is_out(tmp_path: Path) -> None:
    found = tuning(Prices(cpu_hour=0.04, gb_hour=0.005))
    head, first, second, third = found.table()
    assert head.split()[-1] == "settings"
    assert first.startswith("* ")
    assert first.split()[1:5] == ["145", "140", "2.00", "200"]
    assert second.startswith("  ")
    assert third.endswith("8 rows: the service <died>")
    # 0.04 for a core and 0.1049 GB for 0.005 each: 0.0405/h; a million requests at 90/s take 3.086 hours.
    assert found.tried[0].per_million(found.prices) == pytest.approx(0.1251, abs=1e-3)
    file = tmp_path / "tune.json"
    write_tuning_report(found, file)
    page = (tmp_path / "tune.html").read_text()
    assert "<svg" in page
    assert "the service &lt;died&gt;" in page
    assert read_record(file, Tuning, "a search") == found
    assert "price/h" not in tuning(Prices()).table()[0]


def test_limits_of_the_search_itself_are_said() -> None:
    found = tuning(Prices())
    bad = found.tried[2].model_copy(update={"out": "can't be measured: the generator used 93% of a core"})
    notes = found.model_copy(update={"tried": [*found.tried[:2], bad], "seconds": [5.0]}).table()[-2:]
    assert (
        notes[0] == "note: the load generator was the limit of 1 candidate, which may hold more: run it on another host"
    )
    assert notes[1].startswith("note: the time was enough for one round")
    assert found.notes == []
    untried = found.tried[2].model_copy(update={"out": UNTRIED})
    shown = found.model_copy(update={"tried": [*found.tried[:2], untried]}).table()
    assert shown[3:] == ["note: 1 of 3 candidates not tried: the time was too short; give more --minutes"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tune", "--url", "http://127.0.0.1:1"], "--tune starts services with settings of its own: leave --url out"),
        (["--cpu-hour", "0.04"], "--cpu-hour and --gb-hour are prices for --tune"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: list[str], message: str) -> None:
    answer = CliRunner().invoke(cli, ["bench", "capacity", "dense", "--p99", "50ms", *options])
    assert answer.exit_code == 2
    assert message in answer.output


def test_service_that_does_not_start_is_out_with_the_reason(tmp_path: Path) -> None:
    entry = put(tmp_path, tmp_path / "a", "dense", "onnx-fp32-1")
    model = entry.path / "model.onnx"
    model.write_bytes(model.read_bytes()[:-20])
    visit = Visits([Choice(model=entry.tag)], SLO)(0, 2.0)
    assert visit.rate is None
    assert "model.onnx: corrupt, " in visit.out
    assert "\n" not in visit.out
