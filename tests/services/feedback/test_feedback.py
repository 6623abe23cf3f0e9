"""Feedback over HTTP: who got which answer is kept, and what comes later finds it by the request id."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from hone import store
from hone.lifecycle.feedback.joined import Joined, joined
from hone.services.access.api_keys import add_key
from hone.services.feedback.collector import Collector
from hone.services.routes.feedback.described import operation
from hone.services.routes.openapi import ERRORS
from tests.models.dense import dense_answer, dense_artifact
from tests.services.arms.serving import BODY, Worker, serving

URL = "/models/dense/feedback"
SPLIT = "/v2/repository/models/dense/split"


@dataclass(frozen=True)
class Shop:
    """A service that keeps answers, and its keys."""

    client: httpx.Client
    collector: Collector
    folder: Path
    keys: dict[str, str]

    def ask(self, identity: str = "", **headers: str) -> str:
        """Ask for a row; return the request id that the answer bears."""
        given = {"x-request-id": identity} if identity else {}
        answer = self.client.post(
            "/predict", json=BODY, headers={**given, **headers, "x-api-key": self.keys["predict"]}
        )
        assert answer.status_code == 200, answer.text
        return answer.headers["x-request-id"]

    def tell(self, content: object, scope: str = "feedback") -> httpx.Response:
        return self.client.post(URL, json=content, headers={"x-api-key": self.keys[scope]})

    def rows(self) -> dict[str, Joined]:
        """Return everything that is kept, by request id; nothing is kept from then on."""
        self.collector.close()
        return {one.request_id: one for one in joined(self.folder, "dense")}


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Shop]:
    for seed, version in enumerate("ab"):
        store.put(dense_artifact(tmp_path / version, variant=version, seed=seed), "dense", version)
    file = tmp_path / "keys.yaml"
    keys = {scope: add_key(file, scope, (scope,)) for scope in ("predict", "feedback", "operate")}
    keys["other"] = add_key(file, "other", ("feedback:digits",))
    worker = Worker(tmp_path / "shared", "dense:a", api_keys=str(file), subject_header="X-User")
    worker.edge.collector = Collector(tmp_path / "feedback", flush_s=3600)
    with serving(worker) as client:
        yield Shop(client, worker.edge.collector, tmp_path / "feedback", keys)
    worker.edge.collector.close()


def test_feedback_finds_the_answer_that_it_is_about(shop: Shop) -> None:
    first, second, third = shop.ask("mine"), shop.ask(), shop.ask(**{"x-user": "anna"})
    assert first == "mine" and len({first, second, third}) == 3
    entries = [
        {"request_id": first, "label": 2},
        {"request_id": second, "figures": {"revenue": 9.5}},
        {"request_id": "of another service", "label": 1},
    ]
    assert shop.tell({"feedback": entries}).json() == {"accepted": 3}
    assert shop.tell({"request_id": second, "label": 0}).json() == {"accepted": 1}
    found = shop.rows()
    assert set(found) == {first, second, third}
    assert (found[first].label, found[first].figures) == (2, {}) and found[first].known >= found[first].time
    assert (found[second].label, found[second].figures) == (0, {"revenue": 9.5})
    assert (found[third].label, found[third].known, found[third].version) == (None, 0.0, "a")
    assert found[first].unit == "" != found[third].unit and "anna" not in found[third].unit
    expected = dense_answer(np.array([[0, 1, 2, 3]], np.float32))
    np.testing.assert_allclose(found[first].outputs["scores"], expected, rtol=1e-5)
    assert all(file.stat().st_mode & 0o77 == 0 for file in shop.folder.rglob("*") if file.is_file())


def test_a_call_that_is_made_again_changes_nothing_and_a_correction_counts(shop: Shop) -> None:
    identity = shop.ask()
    for label in (1, 1, 2):
        assert shop.tell([{"request_id": identity, "label": label}]).status_code == 200
    assert [one.label for one in shop.rows().values()] == [2]


def test_answers_of_a_split_are_kept_with_arm_and_unit(shop: Shop) -> None:
    arms = [{"version": "a", "weight": 50}, {"name": "canary", "version": "b", "weight": 50}]
    rules = {"parameters": {"arms": arms, "sticky": "X-Caller"}}
    operate = {"x-api-key": shop.keys["operate"]}
    assert shop.client.post(SPLIT, json=rules, headers=operate).status_code == 200
    asked = {shop.ask(**{"x-caller": f"caller-{number % 12}"}): number % 12 for number in range(24)}
    named = shop.ask(**{"x-hone-arm": "canary"})
    found = shop.rows()
    units = {
        caller: {(found[one].unit, found[one].arm) for one in asked if asked[one] == caller} for caller in range(12)
    }
    assert all(len(kinds) == 1 for kinds in units.values()), "a caller has one unit, and one arm"
    assert len({unit for kinds in units.values() for unit, _ in kinds}) == 12
    assert {(one.arm, one.version) for one in found.values()} == {("a", "a"), ("canary", "b")}
    assert (found[named].by, found[named].unit) == ("header", "") and found[next(iter(asked))].by == "split"


def test_feedback_needs_its_scope_and_says_what_is_wrong(shop: Shop) -> None:
    good = {"request_id": "x", "label": 1}
    assert shop.client.post(URL, json=good).status_code == 401
    assert shop.tell(good, "predict").status_code == shop.tell(good, "other").status_code == 403
    assert shop.client.get(URL, headers={"x-api-key": shop.keys["feedback"]}).status_code == 405
    for content, said in (
        ([], "0 entries"),
        ({"label": 1}, "entry 0: request_id"),
        ([good, {"request_id": "y"}], "entry 1: neither label nor figures"),
        ([{"request_id": "y", "lable": 1}], "entry 0: no such field: lable"),
        ([{"request_id": "y", "label": {"class": 1}}], "entry 0: label"),
        ([{"request_id": "y", "figures": {"revenue": "much"}}], "entry 0: figures.revenue"),
        ([{"request_id": "y", "label": 1, "time": "yesterday"}], "entry 0: time"),
        ([{"request_id": "y", "label": 1, "time": 1.8e12}], "entry 0: time"),
    ):
        refused = shop.tell(content)
        assert refused.status_code == 400 and said in refused.json()["error"], refused.text
    broken = shop.client.post(URL, content=b"{", headers={"x-api-key": shop.keys["feedback"]})
    assert broken.status_code == 400 and "not JSON" in broken.json()["error"]
    assert not list(shop.folder.glob("labels/**/*.jsonl")), "nothing of a refused call is kept"


def test_without_a_folder_feedback_is_off(tmp_path: Path) -> None:
    store.put(dense_artifact(tmp_path / "a"), "dense", "a")
    with serving(Worker(tmp_path / "shared", "dense:a")) as client:
        answer = client.post("/predict", json=BODY)
        assert "x-request-id" not in answer.headers
        refused = client.post(URL, json={"request_id": "x", "label": 1})
        assert refused.status_code == 404 and "HONE_FEEDBACK_DIR" in refused.json()["error"]


def test_what_is_described_is_what_is_taken(shop: Shop) -> None:
    import jsonschema

    described = operation(ERRORS)
    body = described["requestBody"]["content"]["application/json"]
    jsonschema.validate(body["example"], body["schema"])
    answer = shop.tell(body["example"])
    jsonschema.validate(answer.json(), described["responses"]["200"]["content"]["application/json"]["schema"])
    assert answer.status_code == 200
