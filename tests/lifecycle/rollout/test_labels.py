"""Rollouts that wait for labels: what counts, and that more wrong answers take a version back."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from click.testing import CliRunner

from hone import store
from hone.cli.main import cli
from hone.evidence.canary import Beside
from hone.lifecycle.feedback.joined import Joined
from hone.lifecycle.rollout import labels as labeled
from hone.lifecycle.rollout.begin import begin
from hone.lifecycle.rollout.drive import Driver
from hone.lifecycle.rollout.labels import MARGIN_S, counted, is_wrong
from hone.lifecycle.rollout.state import Labels, Rollout, RolloutError, rollout_of
from hone.services.arms import evidence
from hone.services.feedback.collector import Collector
from hone.services.status.asking import Access
from tests.models.dense import dense_artifact
from tests.servers import caller
from tests.services.arms.serving import BODY, Worker, serving

EASY = {"errors": 0.5, "p99": 0.9}
"""A few requests prove it."""


def answer(version: str, time: float, scores: Any, label: Any, by: str = "split") -> Joined:
    return Joined("r", time, "dense", version, by=by, outputs={"scores": np.array(scores)}, label=label)


def test_answers_count_between_the_changes_of_weights_and_where_nobody_chose_the_version() -> None:
    turns = (100.0, 200.0)
    rollout = Rollout(
        name="dense", url="http://x", stable="a", canary="b", steps=(50, 100), window_s=0, patience_s=0, limits={},
        turns=turns,
    )  # fmt: skip
    right, wrong = [[0.1, 0.9]], [[0.9, 0.1]]
    after = MARGIN_S + 1
    found = counted(
        rollout,
        [
            answer("a", 99.0, wrong, 1),
            answer("a", 101.0, wrong, 1),
            answer("a", 100 + after, right, 1),
            answer("b", 100 + after, wrong, 1),
            answer("b", 100 + after, wrong, 1, by="header"),
            answer("b", 100 + after, wrong, 1, by="fallback"),
            answer("b", 100 + after, wrong, None),
            answer("c", 100 + after, wrong, 1),
            answer("b", 199.0, wrong, 1),
            answer("b", 200 + after, right, 1, by=""),
        ],
    )
    assert found == [Beside(1, 1, 0, 1), Beside(0, 1, 0, 0)]


def test_the_first_row_of_an_answer_counts_where_its_label_is_known() -> None:
    assert is_wrong(answer("a", 0.0, [[0.9, 0.1], [0.9, 0.1]], [0, 1])) is False
    assert is_wrong(answer("a", 0.0, [[0.9, 0.1], [0.9, 0.1]], [1, 0])) is True
    assert is_wrong(answer("a", 0.0, [[0.9, 0.1]], [1, 0])) is None
    assert is_wrong(answer("a", 0.0, [[0.9, 0.1]], 1), "others") is None


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.Client]:
    monkeypatch.setattr(evidence, "FEWEST", 20)
    monkeypatch.setattr(labeled, "MARGIN_S", 0.0)
    monkeypatch.setattr(labeled, "LOOK_S", 0.2)
    for seed, version in enumerate("ab"):
        store.put(dense_artifact(tmp_path / version, variant=version, seed=seed), "dense", version)
    worker = Worker(tmp_path / "shared", "dense:a")
    worker.edge.collector = Collector(tmp_path / "kept", flush_s=0.1)
    with serving(worker) as client:
        yield client
    worker.edge.collector.close()


@contextmanager
def labels_for(client: httpx.Client, worse: str = "") -> Iterator[None]:
    """Ask a service on and on, and tell it what was right: what it answered, but for the version that is worse."""
    stop = threading.Event()

    def ask() -> None:
        number = 0
        with caller(client.base_url) as own:
            while not stop.is_set():
                number += 1
                found = own.post("/predict", json=BODY, headers={"x-request-id": f"r{number}"}).json()
                (scores,) = found["outputs"].values()
                best = int(np.argmax(scores[0]))
                label = best if found["model"] != f"dense:{worse}" else 1 - min(best, 1)
                own.post("/models/dense/feedback", json=[{"request_id": f"r{number}", "label": label}])

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def driver_of(client: httpx.Client, folder: Path, allowed: float) -> Driver:
    rollout = begin(
        "dense", "b", str(client.base_url).rstrip("/"), Access(), promoting=False, steps=(50, 100), window_s=0.0,
        patience_s=60.0, limits=EASY, reason="a test", labels=Labels(folder=str(folder), allowed=allowed),
    )  # fmt: skip
    return Driver(rollout, Access(), lambda _: None, poll_s=0.02, blind_s=0.3)


def test_more_wrong_answers_take_a_version_back(service: httpx.Client, tmp_path: Path) -> None:
    driver = driver_of(service, tmp_path / "kept", 0.1)
    with labels_for(service, worse="b"), pytest.raises(RolloutError, match="wrong by their labels") as error:
        driver.run()
    assert error.value.exit_code == 3
    found = rollout_of("dense")
    assert found is not None and found.status == "rolled back"
    assert service.post("/predict", json=BODY).json()["model"] == "dense:a"


def test_a_version_with_right_answers_gets_all_requests(service: httpx.Client, tmp_path: Path) -> None:
    driver = driver_of(service, tmp_path / "kept", 0.5)
    with labels_for(service):
        driver.run()
    assert driver.rollout.status == "promoted"
    assert [check["name"] for check in driver.verdict["checks"]] == ["errors", "p99", "labels"]
    assert len(driver.rollout.turns) == 2


def test_without_labels_a_step_goes_on_waiting_for_them(service: httpx.Client, tmp_path: Path) -> None:
    driver = driver_of(service, tmp_path / "kept", 0.5)
    driver.rollout = driver.rollout.becoming(patience_s=1.0)
    with pytest.raises(RolloutError, match="wrong by their labels") as error:
        driver.run()
    assert error.value.exit_code == 4
    status = CliRunner().invoke(cli, ["rollout", "status", "dense", "--json"])
    assert "labels" in [check["name"] for check in json.loads(status.output)["now"]["checks"]]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--labels", "none"], "none: not a folder; services keep answers and feedback in HONE_FEEDBACK_DIR"),
        (["--wrong", "0.1"], "--wrong and --output need --labels"),
    ],
)
def test_wrong_options_are_one_line(
    service: httpx.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words_of = ["rollout", "start", "dense", "--to", "b", "--no-promotion", "--url", str(service.base_url), *given]
    found = CliRunner().invoke(cli, words_of)
    assert found.exit_code != 0 and words in found.output
    assert rollout_of("dense") is None
