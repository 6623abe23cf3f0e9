"""A variant that is clearly over the budget answers no more rows; one that isn't answers all."""

from __future__ import annotations

import numpy as np
import pytest

from hone.converters.proof.judge import Judge
from hone.converters.proof.metrics import Answers, all_metrics
from hone.converters.proof.race.early import FIRST_ROWS, Early
from hone.converters.proof.race.referee import Seen

ROWS = 2000


def judge(name: str) -> Judge:
    metric = all_metrics()[name]

    def score(got: dict[str, np.ndarray], source: dict[str, np.ndarray], labels: np.ndarray | None) -> float:
        return metric.score(Answers(got["y"], source["y"], labels))

    return Judge(name, metric.higher_is_better, score, metric=metric, output="y")


def classes(wanted: np.ndarray) -> np.ndarray:
    return np.eye(10, dtype=np.float32)[wanted]


LABELS = np.random.default_rng(0).integers(10, size=ROWS)
SOURCE = {"y": classes(LABELS)}


def wrong(rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return answers that are wrong in these rows."""
    return {"y": classes(np.where(np.isin(np.arange(ROWS), rows), (LABELS + 1) % 10, LABELS))}


def watched(early: Early, got: dict[str, np.ndarray]) -> tuple[int, Seen | None]:
    """Return after how many rows a variant was stopped, and what was seen of it."""
    rows = np.arange(0)
    pieces = early.pieces(ROWS)
    assert pieces is not None
    for piece in pieces:
        rows = np.concatenate([rows, piece])
        if seen := early.look("v", {"y": got["y"][rows]}, rows):
            return len(rows), seen
    assert sorted(rows) == list(range(ROWS))
    return len(rows), None


def test_garbage_is_stopped_at_the_first_look() -> None:
    early = Early(judge("accuracy"), 0.02, SOURCE, LABELS, 0.95)
    rows, seen = watched(early, wrong(np.arange(0, ROWS, 2)))
    assert rows == FIRST_ROWS and seen is not None
    assert seen.reason.startswith(f"over the budget after {FIRST_ROWS} of {ROWS} rows: accuracy loses 0.")
    claim = early.evidence["v"].loss
    assert claim.missed(0.95) and not claim.met(0.95) and claim.bounds is not None
    assert claim.bounds.lower(0.95) <= seen.source - seen.value <= claim.bounds.upper(0.95)


def test_what_is_lost_in_sorted_rows_is_not_taken_for_the_loss_in_all() -> None:
    """The first fifty rows are wrong, 2.5 % of all: with 5 % allowed that is no reason to stop."""
    early = Early(judge("accuracy"), 0.05, SOURCE, LABELS, 0.95)
    assert watched(early, wrong(np.arange(50))) == (ROWS, None)


def test_a_loss_a_little_over_the_budget_takes_more_rows() -> None:
    generator = np.random.default_rng(1)
    early = Early(judge("accuracy"), 0.02, SOURCE, LABELS, 0.95)
    rows, seen = watched(early, wrong(generator.permutation(ROWS)[: ROWS // 10]))
    assert seen is not None and FIRST_ROWS < rows < ROWS


@pytest.mark.slow
def test_what_is_within_the_budget_is_hardly_ever_stopped() -> None:
    """All that is allowed is lost; a tenth of the risk of 5 % is taken by looks."""
    generator, stopped = np.random.default_rng(2), 0
    for _ in range(200):
        early = Early(judge("accuracy"), 0.05, SOURCE, LABELS, 0.95)
        stopped += watched(early, wrong(np.flatnonzero(generator.random(ROWS) < 0.05)))[1] is not None
    assert stopped <= 4


def test_errors_without_an_end_and_similarities_are_watched_too() -> None:
    generator = np.random.default_rng(3)
    values = generator.normal(size=(ROWS, 8)).astype(np.float32)
    turned = {"y": np.roll(values, 1, axis=0)}
    rows, seen = watched(Early(judge("cosine"), 0.005, {"y": values}, None, 0.95), turned)
    assert rows == FIRST_ROWS and seen is not None and seen.source == pytest.approx(1)
    labels = values[:, 0] + generator.normal(0, 0.1, ROWS).astype(np.float32)
    source, far = {"y": values[:, 0]}, {"y": values[:, 0] + 5}
    rows, seen = watched(Early(judge("mae"), 0.1, source, labels, 0.95), far)
    assert rows < ROWS and seen is not None and seen.value > seen.source


def test_answers_that_are_no_numbers_count_as_lost() -> None:
    values = np.random.default_rng(4).normal(size=(ROWS, 8)).astype(np.float32)
    rows, seen = watched(Early(judge("cosine"), 0.005, {"y": values}, None, 0.95), {"y": np.full_like(values, np.nan)})
    assert rows == FIRST_ROWS and seen is not None


@pytest.mark.parametrize(("name", "allowed"), [("rank1", 0.02), ("f1", 0.02), ("accuracy", 1.0)])
def test_what_can_not_be_told_from_some_rows_is_not_watched(name: str, allowed: float) -> None:
    assert Early(judge(name), allowed, SOURCE, LABELS, 0.95).pieces(ROWS) is None


def test_few_rows_are_answered_at_once() -> None:
    assert Early(judge("accuracy"), 0.02, SOURCE, LABELS, 0.95).pieces(FIRST_ROWS) is None
