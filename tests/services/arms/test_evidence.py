"""What is slow in processes that serve one arm alone: a stall is one event, however many requests it holds up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hone.services.arms import evidence
from hone.services.arms.counts import BOUNDS, Done
from hone.services.arms.evidence import Evidence, Limits
from hone.services.arms.split import Arm, Split

FAST, SLOW = 2, len(BOUNDS) - 10
SPLIT = Split(model="dense", arms=(Arm(name="old", version="a", weight=95), Arm(name="new", version="b", weight=5)))


@dataclass
class Counting:
    """Two arms as they are counted, each in processes of its own where some are given."""

    processes_of: Mapping[str, int]
    arms: dict[str, Done] = field(default_factory=lambda: {"old": Done(), "new": Done()})

    def answered(self, arm: str, fast: int, slow: int = 0) -> None:
        done = self.arms[arm]
        done.requests += fast + slow
        done.bins[FAST] += fast
        done.bins[SLOW] += slow

    def total(self, split: Split) -> dict[str, Done]:
        return self.arms

    def processes(self, split: Split) -> Mapping[str, int]:
        return self.processes_of


def verdict(folder: Path, counting: Counting) -> str:
    # Another one each time, as drivers that are killed and resumed are.
    found, _ = Evidence(folder, SPLIT, counting).verdict("new", Limits())
    assert found.verdict != "undecided" or found.reason.startswith("not enough evidence")
    return found.verdict


@pytest.mark.parametrize(("processes", "said"), [({"old": 2, "new": 1}, "undecided"), ({}, "bad")])
def test_stall_of_a_few_requests_is_no_evidence_against_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processes: dict[str, int], said: str
) -> None:
    monkeypatch.setattr(evidence, "MOMENT_S", 0.0)
    counting = Counting(processes)
    counting.answered("old", 600, 10)
    assert verdict(tmp_path, counting) == "undecided"
    counting.answered("old", 200)
    counting.answered("new", 7, 5)
    assert verdict(tmp_path, counting) == said


def test_arm_that_is_slow_again_and_again_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MOMENT_S", 0.0)
    counting = Counting({"old": 2, "new": 1})
    counting.answered("old", 600, 10)
    verdict(tmp_path, counting)
    found = ""
    for _ in range(12):
        counting.answered("old", 20)
        counting.answered("new", 0, 1)
        found = verdict(tmp_path, counting)
    assert found == "bad"


def test_looks_that_follow_at_once_are_one_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "MOMENT_S", 1e9)
    counting = Counting({"old": 2, "new": 1})
    counting.answered("old", 600, 10)
    for _ in range(30):
        counting.answered("old", 20)
        counting.answered("new", 0, 1)
        assert verdict(tmp_path, counting) == "undecided"
