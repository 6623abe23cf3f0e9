"""Splits of a service: who sets them, what callers get, what is counted, and what stays after the end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from hone import store
from hone.services.access.api_keys import add_key
from hone.services.arms.counts import SharedArms
from hone.services.arms.evidence import Limits
from hone.services.http.failures import InferenceError, RequestError
from hone.services.routes.hub import Hub
from hone.store.registry import change, pointer_to
from tests.models.dense import dense_artifact
from tests.services.arms.serving import BODY, Worker, serving

SPLIT = "/v2/repository/models/dense/split"
HALVES = [{"version": "a", "weight": 50}, {"name": "canary", "version": "b", "weight": 50}]


@pytest.fixture
def two(tmp_path: Path) -> None:
    for seed, version in enumerate("ab"):
        store.put(dense_artifact(tmp_path / version, variant=version, seed=seed), "dense", version)


@pytest.fixture
def worker(tmp_path: Path, two: None) -> Worker:
    return Worker(tmp_path / "shared", "dense:a")


@pytest.fixture
def client(worker: Worker) -> Iterator[httpx.Client]:
    with serving(worker) as running:
        yield running


def put(client: httpx.Client, arms: list[dict[str, Any]], **rules: Any) -> httpx.Response:
    return client.post(SPLIT, json={"parameters": {"arms": arms, **rules}})


def weighed(canary: float) -> list[dict[str, Any]]:
    return [{"version": "a", "weight": 100 - canary}, {"name": "canary", "version": "b", "weight": canary}]


def ask(client: httpx.Client, **headers: str) -> tuple[str, str]:
    """Return the arm that a request was answered by, as its head and its body say."""
    answer = client.post("/predict", json=BODY, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.headers.get("x-hone-arm", ""), answer.json()["model"]


def test_requests_are_shared_out_and_every_answer_says_by_whom(client: httpx.Client) -> None:
    assert ask(client) == ("", "dense:a")
    assert put(client, HALVES).status_code == 200
    assert {ask(client) for _ in range(40)} == {("a", "dense:a"), ("canary", "dense:b")}
    assert ask(client, **{"x-hone-arm": "canary"}) == ("canary", "dense:b")
    refused = client.post("/models/dense/predict", json=BODY, headers={"x-hone-arm": "other"})
    assert (refused.status_code, refused.json()["error"]) == (400, "no arm 'other'; there is a, canary")
    by_version = client.post("/models/dense/versions/b/predict", json=BODY)
    assert "x-hone-arm" not in by_version.headers
    done = client.get(SPLIT).json()["arms"]
    # Whoever names an arm is no evidence.
    assert done["a"]["requests"] + done["canary"]["requests"] == 40
    assert client.request("DELETE", SPLIT).json()["answers"] == "a"
    assert ask(client) == ("", "dense:a")
    assert client.get("/v2/models/dense").json()["versions"] == ["a"]


def test_weights_change_at_once_and_callers_stay_where_they_are(client: httpx.Client) -> None:
    callers = [{"x-caller-key": f"user-{number}"} for number in range(60)]
    held: set[int] = set()
    for percent in (20, 60, 100):
        put(client, weighed(percent), sticky="X-Caller-Key")
        mine = {at for at, caller in enumerate(callers) if ask(client, **caller)[0] == "canary"}
        assert held <= mine
        held = mine
    assert len(held) == len(callers)


def test_other_workers_have_the_same_split(worker: Worker, tmp_path: Path) -> None:
    async def main() -> None:
        other = Worker(tmp_path / "shared", "dense:a")
        for one in (worker, other):
            await one.start()
        parameters = {"arms": HALVES, "sticky": "x-caller-key"}
        await worker.operations.set("me", "dense", parameters)
        await other.repository.catch_up()
        heads = [{b"x-caller-key": f"user-{number}".encode()} for number in range(50)]
        for percent in (50.0, 10.0, 90.0):
            await other.operations.set("me", "dense", {**parameters, "arms": weighed(percent)})
            # No look at a file in between: the weights are in memory that both map.
            chosen = [[one.hub.splits.choose("dense", head)[0] for head in heads] for one in (worker, other)]
            assert chosen[0] == chosen[1]
        await worker.operations.clear("me", "dense", {"answer": "canary"})
        await other.repository.catch_up()
        for one in (worker, other):
            assert one.hub.splits.active == {}
            assert one.hub.versions("dense") == ["b"]
            await one.hub.close()

    asyncio.run(main())


def test_split_is_taken_up_by_the_next_start(worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with serving(worker) as client:
        assert put(client, weighed(30)).json()["kept"]
    with serving(Worker(tmp_path / "later", "dense:a")) as client:
        assert [arm["weight"] for arm in client.get(SPLIT).json()["split"]["arms"]] == [70, 30]
        assert ask(client, **{"x-hone-arm": "canary"})[1] == "dense:b"
    store.remove(store.resolve("dense:b"))
    with serving(Worker(tmp_path / "last", "dense:a")) as client:
        assert client.get(SPLIT).json()["split"] is None
        assert ask(client) == ("", "dense:a")
    assert "the split of 'dense' is not taken up" in caplog.text


@pytest.mark.parametrize(
    ("arms", "status", "words"),
    [
        ([{"version": "a", "weight": 90}], 400, "the weights are 90 % together"),
        ([{"version": "a", "weight": 90}, {"version": "gone", "weight": 10}], 404, "gone"),
        ([{"version": "a", "weight": 90}, {"version": "candidate", "weight": 10}], 404, "'dense' has no candidate"),
        ([{"version": "a", "weight": 90}, {"version": "other", "weight": 10}], 422, "has other inputs than dense:a"),
        ([{"version": "a", "weight": 90}, {"version": "broken", "weight": 10}], 422, "corrupt"),
        ([{"weight": 100}], 400, 'needs a "version"'),
        ("all", 400, '"arms" must be a list'),
    ],
)
def test_what_cant_be_served_takes_no_weight(
    client: httpx.Client, tmp_path: Path, arms: Any, status: int, words: str
) -> None:
    other = dense_artifact(tmp_path / "other", variant="other")
    wider = other.signature.inputs[0].model_copy(update={"shape": ("batch", "length")})
    other = other.with_manifest(signature=other.signature.model_copy(update={"inputs": (wider,)}))
    store.put(other, "dense", "other")
    broken = store.put(dense_artifact(tmp_path / "broken", variant="broken"), "dense", "broken").path / "model.onnx"
    broken.write_bytes(broken.read_bytes()[:-1])
    answer = put(client, arms)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
    assert client.get(SPLIT).json()["split"] is None
    assert client.get("/v2/models/dense").json()["versions"] == ["a"]


def test_alias_stands_for_the_version_that_it_meant(client: httpx.Client) -> None:
    change("dense", lambda before: before.pointing({"candidate": pointer_to(store.resolve("dense:b"))}))
    arms = put(client, [{"version": "a", "weight": 90}, {"version": "candidate", "weight": 10}]).json()["split"]["arms"]
    assert arms[1] == {"name": "candidate", "version": "b", "weight": 10}


def test_arms_stay_loaded_while_they_are_split(client: httpx.Client) -> None:
    put(client, HALVES)
    refused = client.post("/v2/repository/models/dense/unload", json={"parameters": {"version": "b"}})
    assert (refused.status_code, "is an arm of a split" in refused.json()["error"]) == (400, True)
    assert client.post("/v2/repository/models/dense/load", json={"parameters": {"version": "a"}}).status_code == 200
    assert {ask(client)[0] for _ in range(30)} == {"a", "canary"}


def test_fallback_answers_what_an_arm_fails_on(
    client: httpx.Client, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any, **__: Any) -> Any:
        raise InferenceError("broken")

    put(client, weighed(100))
    monkeypatch.setattr(worker.hub.get("dense", "b"), "infer", fails)
    assert client.post("/predict", json=BODY).status_code == 500  # it is off by default
    put(client, weighed(100), fallback=True)
    monkeypatch.setattr(worker.hub.get("dense", "b"), "infer", fails)
    assert {ask(client) for _ in range(5)} == {("a", "dense:a")}
    done = client.get(SPLIT).json()["arms"]
    assert done["canary"]["errors"] == 5
    assert done["a"]["requests"] == 0  # what another arm left over is no evidence


def test_stable_arm_computes_a_share_of_the_others_requests_too(client: httpx.Client, worker: Worker) -> None:
    put(client, weighed(100), compare=1)
    for _ in range(20):
        ask(client)
    for _ in range(200):
        done = worker.hub.splits.active["dense"].done["canary"]
        if done.compared == 20:
            break
        threading.Event().wait(0.02)
    assert (done.compared, done.agreeing) == (20, 0)  # the models have other weights
    assert client.get("/v2/rollout/dense/verdict?agreement=0.9").json()["verdict"] == "bad"


def test_verdict_is_for_whoever_reads_json_or_only_a_status(client: httpx.Client) -> None:
    nothing = client.get("/v2/rollout/dense/verdict").json()
    assert (nothing["verdict"], nothing["checks"]) == ("undecided", [])
    assert client.post("/v2/rollout/dense/verdict").status_code == 409
    put(client, HALVES)
    ask(client)
    found = client.get("/v2/rollout/dense/verdict?errors=0.02").json()
    assert (found["verdict"], found["arm"], found["limits"]["errors"]) == ("undecided", "canary", 0.02)
    assert found["missing"] > 0
    assert client.post("/v2/rollout/dense/verdict?while=undecided").status_code == 200
    assert client.get("/v2/rollout/dense/verdict?errors=2").status_code == 400
    assert client.get("/v2/rollout/dense/verdict?arm=a").status_code == 400
    assert client.get("/v2/rollout/nothing/verdict").status_code == 404


def test_verdict_turns_good_and_bad_by_what_all_workers_counted(worker: Worker, tmp_path: Path) -> None:
    async def main() -> None:
        await worker.start()
        await worker.operations.set("me", "dense", {"arms": HALVES})
        active = worker.hub.splits.active["dense"]
        other = SharedArms(tmp_path / "shared")
        theirs = other.of(active.split)
        for name in ("a", "canary"):
            done = active.done[name]
            done.requests, done.bins[5] = 1000, 1000
            theirs[name].requests, theirs[name].bins[5] = 1000, 1000
        other.publish()
        assert worker.operations.verdict("dense", "", Limits())["verdict"] == "undecided"  # its p99 is taken now
        for name in ("a", "canary"):
            done = active.done[name]
            done.requests, done.bins[5] = 3000, 3000
        assert worker.operations.verdict("dense", "", Limits())["verdict"] == "good"
        theirs["canary"].requests += 400
        theirs["canary"].errors += 400
        other.publish()
        found = worker.operations.verdict("dense", "", Limits())
        assert found["verdict"] == "bad"
        assert found["arms"]["canary"]["errors"] == 400
        await worker.hub.close()

    asyncio.run(main())


def test_keys_decide_who_may_split(tmp_path: Path, two: None) -> None:
    keys = tmp_path / "keys.yaml"
    reader, operator = (add_key(keys, scope, (scope,)) for scope in ("predict", "operate"))
    with serving(Worker(tmp_path / "shared", "dense:a", api_keys=str(keys))) as client:
        for key, status in (("", 401), (reader, 403), (operator, 200)):
            client.headers["x-api-key"] = key
            assert put(client, HALVES).status_code == status
        client.headers["x-api-key"] = reader
        assert client.get(SPLIT).status_code == 200
        assert client.request("DELETE", SPLIT).status_code == 403
    log = [json.loads(line) for line in (tmp_path / "shared" / "audit.jsonl").read_text().splitlines()]
    assert [(one["actor"], one["action"], one["subject"], one["outcome"]) for one in log][-1] == (
        "operate", "split", "dense a 50, canary 50", "done",
    )  # fmt: skip


def test_arm_that_no_longer_answers_as_proven_leaves_its_requests_to_the_other(worker: Worker) -> None:
    async def main() -> None:
        await worker.start()
        await worker.operations.set("me", "dense", {"arms": HALVES})
        hub: Hub = worker.hub
        hub._drop("dense", ["b"])
        hub._route()
        assert type(hub.routes["/predict"]).__name__ == "InferEndpoint"
        with pytest.raises(RequestError):
            hub.splits.choose("dense", {b"x-hone-arm": b"nobody"})
        await hub.close()

    asyncio.run(main())
