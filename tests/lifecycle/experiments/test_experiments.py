"""A/B tests at services of this process: begun in all of them or in none, ended whole, guarded, the same after a
restart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from hone import store
from hone.cli.main import cli
from hone.lifecycle.experiments import figures
from hone.lifecycle.experiments.metrics import ExperimentError
from hone.lifecycle.experiments.state import Experiment, experiment_of
from hone.lifecycle.experiments.watch import Watcher
from hone.lifecycle.registry.history import changes
from hone.services.arms import evidence, kept
from hone.services.feedback.collector import Collector
from hone.services.http.failures import InferenceError
from hone.services.launch import free_port
from hone.services.status.asking import Access
from hone.store.changes import remove
from hone.store.registry import change, pointer_to
from tests.models.dense import dense_artifact
from tests.services.arms.serving import BODY, Worker, serving

SPLIT = "/v2/repository/models/dense/split"


@pytest.fixture(autouse=True)
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "FEWEST", 20)
    monkeypatch.setattr(figures, "MARGIN_S", 0.0)
    for seed, version in enumerate("abc"):
        store.put(dense_artifact(tmp_path / version, variant=version, seed=seed), "dense", version)


def made(tmp_path: Path, name: str = "one") -> Worker:
    worker = Worker(tmp_path / name, "dense:a")
    worker.edge.collector = Collector(tmp_path / "kept", flush_s=0.0)
    return worker


@pytest.fixture
def service(tmp_path: Path) -> Iterator[httpx.Client]:
    worker = made(tmp_path)
    with serving(worker) as client:
        client.worker = worker  # type: ignore[attr-defined]
        yield client
    assert worker.edge.collector is not None
    worker.edge.collector.close()


def hone(*words: Any) -> Any:
    return CliRunner().invoke(cli, [str(word) for word in words])


def start(*given: httpx.Client | str, to: str = "b", **options: Any) -> Any:
    """Begin a test at services; words are given to the command as they are."""
    pairs = [("--url", str(one.base_url).rstrip("/")) if isinstance(one, httpx.Client) else (one,) for one in given]
    urls = [word for pair in pairs for word in pair]
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return hone("ab", "start", "dense", "--to", to, *urls, *words)


def now() -> Experiment:
    found = experiment_of("dense")
    assert found is not None
    return found


def split(client: httpx.Client) -> Any:
    return client.get(SPLIT).json()["split"]


def arm_of(client: httpx.Client, caller: str) -> str:
    return client.post("/predict", json=BODY, headers={"x-user": caller}).headers["x-hone-arm"]


def told() -> list[str]:
    return [one.details["reason"] for one in changes("dense") if one.action == "ab" and one.outcome == "done"]


def test_every_service_deals_callers_alike_and_the_winner_answers_in_all(tmp_path: Path, service: httpx.Client) -> None:
    with serving(made(tmp_path, "two")) as other:
        begun = start(service, other, to="b=30", sticky="X-User", metric="revenue", dir=tmp_path / "kept")
        assert begun.exit_code == 0, begun.output
        callers = [f"caller-{number}" for number in range(60)]
        arms = [arm_of(service, caller) for caller in callers]
        assert arms == [arm_of(other, caller) for caller in callers]
        assert 5 < arms.count("b") < 35
        shown = json.loads(hone("ab", "status", "dense", "--json").output)
        assert sum(arm["requests"] for arm in shown["arms"]) == 120
        assert hone("ab", "stop", "dense", "--answer", "b").exit_code == 0
        for client in (service, other):
            assert split(client) is None
            assert client.post("/predict", json=BODY).json()["model"] == "dense:b"
    assert (now().status, now().answer) == ("stopped", "b")
    assert told() == ["control 70 %, b 30 % of the requests", "all requests: asked for"]


def test_a_service_that_refuses_leaves_none_with_a_split(tmp_path: Path, service: httpx.Client) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    found = hone("ab", "start", "dense", "--to", "b", "--metric", "errors", "--url", service.base_url, "--url", gone)
    assert found.exit_code == 1 and len(found.output.splitlines()) == 1
    assert "doesn't answer" in found.output
    assert split(service) is None
    assert now().status == "stopped"
    assert start(service, metric="errors").exit_code == 0, "what was not begun is no experiment"


def test_a_figure_finds_the_better_version(tmp_path: Path, service: httpx.Client) -> None:
    assert start(
        service, sticky="X-User", metric="revenue", also="latency", dir=tmp_path / "kept", units=400
    ).exit_code == 0  # fmt: skip
    entries = []
    for number in range(320):
        answer = service.post("/predict", json=BODY, headers={"x-user": f"c{number}", "x-request-id": f"r{number}"})
        worth = 10.0 + number % 5 + 4.0 * (answer.headers["x-hone-arm"] == "b")
        entries.append({"request_id": f"r{number}", "figures": {"revenue": worth}})
    assert service.post("/models/dense/feedback", json=entries).status_code == 200
    service.worker.edge.collector.close()  # type: ignore[attr-defined]
    page, report = tmp_path / "ab.html", tmp_path / "ab.json"
    shown = hone("ab", "status", "dense", "--out", page)
    assert shown.exit_code == 0, shown.output
    assert "verdict    b wins: revenue +" in shown.output
    assert "<svg" in page.read_text() and "b wins: revenue" in page.read_text()
    stopped = hone("ab", "stop", "dense", "--out", report)
    assert "dense:b (b) answers all requests: b wins" in stopped.output
    content = json.loads(report.read_text())
    revenue, latency = content["compared"]
    assert (content["outcome"], content["winner"], content["dealt"]["state"]) == ("winner", "b", "as meant")
    assert revenue["rows"][1]["low"] < 4 < revenue["rows"][1]["high"] and revenue["rows"][1]["low"] > 0
    assert latency["rows"][0]["mean"] > 0
    assert hone("ab", "status", "dense").output.count("b wins") >= 1, "what was known is kept"
    assert hone("ab", "stop", "dense").exit_code == 1


def test_a_variant_that_fails_gets_no_more_requests(service: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start(service, metric="errors").exit_code == 0

    async def fails(*_: Any, **__: Any) -> Any:
        raise InferenceError("broken")

    monkeypatch.setattr(service.worker.hub.get("dense", "b"), "infer", fails)  # type: ignore[attr-defined]
    for _ in range(80):
        service.post("/predict", json=BODY)
    found = hone("ab", "watch", "dense", "--once")
    assert found.exit_code == 3, found.output
    assert "b breaks the guardrail errors" in found.output
    assert split(service) is None
    assert service.post("/predict", json=BODY).json()["model"] == "dense:a"
    assert "breaks the guardrail" in told()[-1]


def test_what_was_killed_as_it_began_is_ended_by_stop(service: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(Experiment, "becoming", _killed_when_running(Experiment.becoming))
        with pytest.raises(KilledError):
            words = ["ab", "start", "dense", "--to", "b", "--metric", "errors", "--url", str(service.base_url)]
            CliRunner().invoke(cli, words, catch_exceptions=False)
    assert now().status == "starting" and split(service) is not None
    again = start(service, metric="errors")
    assert again.exit_code == 1 and "is starting: one at a time" in again.output
    assert "it was interrupted as it began" in hone("ab", "stop", "dense").output
    assert split(service) is None and now().status == "stopped"


class KilledError(BaseException):
    """Stands for a signal that nothing is done about."""


def _killed_when_running(becoming: Any) -> Any:
    def changed(self: Experiment, **fields: Any) -> Experiment:
        if fields.get("status") == "running":
            raise KilledError
        found: Experiment = becoming(self, **fields)
        return found

    return changed


def test_stop_goes_on_where_a_service_was_out_of_reach(tmp_path: Path, service: httpx.Client) -> None:
    worker = made(tmp_path, "two")
    with ExitStack() as stack:
        other = stack.enter_context(serving(worker))
        assert start(service, other, metric="errors").exit_code == 0
    found = hone("ab", "stop", "dense", "--answer", "b")
    assert found.exit_code == 1 and "1 of 2 services have ended it" in found.output
    assert now().status == "stopping"
    assert "b answers some of the services already" in hone("ab", "stop", "dense", "--answer", "control").output
    assert "1 of 2" in hone("ab", "stop", "dense").output
    with serving(made(tmp_path, "again"), other.base_url.port or 0) as back:
        kept.forget("dense")  # it lost its split, and answers with what it was started with
        assert "dense:b" in hone("ab", "stop", "dense").output
        assert back.post("/predict", json=BODY).json()["model"] == "dense:b"
    assert now().status == "stopped"


def test_counts_go_on_after_a_restart_and_the_split_comes_back(tmp_path: Path) -> None:
    port = free_port()
    with serving(made(tmp_path), port) as client:
        assert start(client, metric="errors", sticky="").exit_code == 0
        for _ in range(30):
            client.post("/predict", json=BODY)
        assert hone("ab", "status", "dense").exit_code == 0
        before = split(client)
    kept.forget("dense")  # as in an image, where nothing is kept
    with serving(made(tmp_path, "again"), port) as client:
        assert split(client) is None
        watcher = Watcher("dense", Access(), lambda _: None)
        watcher.look()
        after = split(client)
        assert (after["salt"], after["arms"]) == (before["salt"], before["arms"])
        for _ in range(10):
            client.post("/predict", json=BODY)
        report = watcher.look()
    assert sum(arm.requests for arm in report.arms) == 40


def test_a_clock_that_jumps_changes_neither_time_nor_verdict(service: httpx.Client) -> None:
    assert start(service, metric="errors", **{"for": "1h"}).exit_code == 0
    clock, passed, said = [now().since + 60.0], [60.0], []
    watcher = Watcher("dense", Access(), said.append, clock=lambda: clock[0], passed=lambda: passed[0])
    watcher.look()
    clock[0], passed[0] = clock[0] + 86_400, passed[0] + 10
    report = watcher.look()
    assert "the clock jumped by +86,390 s" in said[0]
    assert report.ran_s == pytest.approx(70, abs=1)
    clock[0], passed[0] = clock[0] + 4000, passed[0] + 4000
    with pytest.raises(ExperimentError, match="its time is over") as caught:
        watcher.look()
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--to", "nothere"), "no version"),
        (("--to", "candidate"), "candidate"),
        (("--to", "a"), "two arms are one version"),
        (("--to", "b=100"), "0 % of the requests are left"),
        (("--to", "b", "--metric", "revenue"), "give --dir"),
        (("--to", "b", "--metric", "p99", "--sticky", "X-User"), "callers are dealt"),
        (("--to", "b", "--metric", "errors", "--guard", "errors"), "is no guardrail"),
        (("--to", "b", "--metric", "errors", "--effect", "5%"), "Give --baseline"),
        (("--to", "b", "--metric", "errors", "--bandit"), "--bandit deals each request anew"),
    ],
)
def test_what_can_not_be_begun_is_told_in_a_line(service: httpx.Client, words: tuple[str, ...], said: str) -> None:
    metric = () if "--metric" in words else ("--metric", "errors")
    found = hone("ab", "start", "dense", "--url", service.base_url, *metric, *words)
    assert found.exit_code in (1, 2) and said in found.output, found.output
    assert len(found.output.splitlines()) == 1, found.output
    assert split(service) is None and experiment_of("dense") is None


def test_an_alias_of_a_deleted_version_is_named(service: httpx.Client) -> None:
    entry = store.resolve("dense:c")
    change("dense", lambda before: before.pointing({"candidate": pointer_to(entry)}))
    remove(entry)
    found = start(service, to="candidate", metric="errors")
    assert found.exit_code == 1 and "candidate" in found.output
    assert len(found.output.splitlines()) == 1 and experiment_of("dense") is None


def test_one_experiment_at_a_time(service: httpx.Client) -> None:
    assert start(service, "--each", metric="errors").exit_code == 0
    again = start(service, to="c", metric="errors")
    assert again.exit_code == 1 and "one at a time" in again.output
    rollout = hone("rollout", "start", "dense", "--to", "c", "--url", service.base_url, "--no-promotion")
    assert rollout.exit_code == 1 and "an A/B test of 'dense' is running" in rollout.output
    assert "dense" in hone("ab", "status").output
    assert hone("ab", "stop", "dense").exit_code == 0
    assert hone("ab", "status", "other").exit_code == 1


def test_a_bandit_gives_the_better_arm_more_and_says_what_that_costs(tmp_path: Path, service: httpx.Client) -> None:
    begun = start(service, "--bandit", metric="revenue", dir=tmp_path / "kept", units=400, guard="errors=0.5")
    assert begun.exit_code == 0, begun.output
    watcher = Watcher("dense", Access(), lambda _: None)
    ask(service, 0, 260)
    until(lambda: sum(arm.units or 0 for arm in watcher.look().arms) == 260)
    assert now().weights_now[1] > 80
    ask(service, 260, 400)
    until(lambda: sum(arm.units or 0 for arm in watcher.look().arms) == 400)
    shown = hone("ab", "status", "dense").output
    assert "BANDIT" in shown and "times as long" in shown
    assert [bool(stage.weights) for stage in now().stages][:3] == [True, False, True]
    assert split(service)["arms"][1]["weight"] == now().weights_now[1]


def test_weights_that_not_every_service_takes_count_for_nothing_until_all_have_them(
    tmp_path: Path, service: httpx.Client
) -> None:
    given = {"metric": "revenue", "dir": tmp_path / "kept", "units": 400, "guard": "errors=0.5"}
    worker, said = made(tmp_path, "two"), []
    with serving(worker) as other:
        assert start(service, other, "--bandit", **given).exit_code == 0
        ask(service, 0, 260)
    watcher = Watcher("dense", Access(), said.append)
    until(lambda: any("the weights are not changed" in one for one in (watcher.look(), *said)[1:]))
    assert [bool(stage.weights) for stage in now().stages] == [True, False]
    assert now().weights_now == (50.0, 50.0)
    with serving(made(tmp_path, "again"), other.base_url.port or 0) as back:
        watcher.look()
        assert [split(one)["arms"][1]["weight"] for one in (service, back)] == [now().weights_now[1]] * 2
    assert [bool(stage.weights) for stage in now().stages][:3] == [True, False, True]


def test_a_guardrail_of_a_figure_ends_it(tmp_path: Path, service: httpx.Client) -> None:
    given = {"metric": "latency", "dir": tmp_path / "kept", "units": 400}
    assert start(service, "--guard", "revenue=5%", **given).exit_code == 0
    ask(service, 0, 260, better="control")
    service.worker.edge.collector.close()  # type: ignore[attr-defined]
    found = hone("ab", "watch", "dense", "--once")
    assert found.exit_code == 3 and "b breaks the guardrail revenue" in found.output, found.output
    assert split(service) is None


def ask(client: httpx.Client, first: int, last: int, better: str = "b") -> None:
    """Ask so often, and post what each answer was worth."""
    entries = []
    for number in range(first, last):
        answer = client.post("/predict", json=BODY, headers={"x-request-id": f"r{number}"})
        worth = 10.0 + number % 5 + 4.0 * (answer.headers["x-hone-arm"] == better)
        entries.append({"request_id": f"r{number}", "figures": {"revenue": worth}})
    assert client.post("/models/dense/feedback", json=entries).status_code == 200


def until(done: Callable[[], bool]) -> None:
    """Wait for the thread that writes answers once a second."""
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.1)
