"""Losses by their bounds, and quality that is estimated without labels beside the quality that labels show."""

from __future__ import annotations

import numpy as np
import pytest

from hone.evidence.live.confidence import calibrated, calibrated_classes, expected, expected_figure
from hone.evidence.live.quality import Estimate, estimate, loss, rows_to_decide


def of_rows(right: np.ndarray) -> Estimate:
    return estimate(lambda rows: float(right[rows].mean()), np.arange(len(right)), right, (0.0, 1.0))


def accuracy(rows: int, share: float, seed: int = 0) -> Estimate:
    return of_rows((np.random.default_rng(seed).random(rows) < share).astype(float))


@pytest.mark.parametrize(
    ("share", "rows", "state"),
    [(0.9, 4000, "holds"), (0.83, 30_000, "warn"), (0.7, 1000, "act"), (0.7, 25, "undecided"), (0.81, 60, "undecided")],
)
def test_a_loss_is_called_by_its_bounds(share: float, rows: int, state: str) -> None:
    found = loss(accuracy(rows, share), accuracy(30_000, 0.9, 1), higher_is_better=True, doubt=0.005, sure=1e-4)
    assert found.state(0.05, 0.10) == state
    assert found.low <= found.point <= found.high and found.sure <= found.low


def test_a_loss_that_is_not_there_is_hardly_ever_acted_on() -> None:
    generator = np.random.default_rng(3)
    called = 0
    for _ in range(300):
        live, proof = (of_rows((generator.random(rows) < 0.9).astype(float)) for rows in (200, 400))
        called += loss(live, proof, higher_is_better=True, doubt=0.01, sure=0.01).state(1e-9, 1e-9) != "undecided"
    assert called <= 8, "one in a hundred looks, in each direction"


def test_rows_of_one_request_count_as_one() -> None:
    generator = np.random.default_rng(1)
    right = np.repeat(generator.random(100) < 0.8, 20).astype(float)
    alone, together = (
        estimate(lambda rows: float(right[rows].mean()), groups, right, (0.0, 1.0))
        for groups in (np.arange(2000), np.repeat(np.arange(100), 20))
    )
    assert alone.point == pytest.approx(together.point)
    assert together.high(0.01) - together.low(0.01) > 3 * (alone.high(0.01) - alone.low(0.01))


def test_an_error_that_grows_is_a_loss() -> None:
    generator = np.random.default_rng(2)
    errors = [np.abs(generator.normal(0, scale, 800)) for scale in (1.0, 1.5)]
    proof, live = (estimate(lambda rows, own=own: float(own[rows].mean()), np.arange(800), own) for own in errors)
    found = loss(live, proof, higher_is_better=False, doubt=0.005, sure=1e-4)
    assert found.state(0.05, 0.10) == "act" and found.point == pytest.approx(0.5, abs=0.1)
    assert loss(proof, live, higher_is_better=False, doubt=0.005, sure=1e-4).state(0.05, 0.10) == "holds"


def test_too_few_labels_tell_nothing_and_how_many_would() -> None:
    with pytest.raises(ValueError, match="19 labeled requests"):
        accuracy(19, 0.5)
    live, proof = accuracy(100, 0.86), accuracy(2000, 0.9, 1)
    found = loss(live, proof, higher_is_better=True, doubt=0.005, sure=1e-4)
    needed = rows_to_decide(live, found, 0.10)
    assert found.state(0.05, 0.10) == "undecided" and needed is not None and needed > 100


def test_the_estimate_without_labels_follows_a_shift_of_real_data() -> None:
    """Digits with ever more noise: what is expected by confidence is near what labels show, and says how near."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    rows, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(rows))
    rows, labels = rows[order] / 16, labels[order]
    model = LogisticRegression(C=0.05, max_iter=200).fit(rows[:600], labels[:600])
    # A calibration must have seen rows that the model is unsure of: the proof's rows have a little noise of their own.
    noise = np.random.default_rng(1)
    known, live = (rows[600:1200] + noise.normal(0, 0.15, (600, 64)), rows[1200:])
    scores = model.predict_proba(known)
    sure, right = scores.max(axis=1), scores.argmax(axis=1) == labels[600:1200]
    off = {}
    for severity in (0.0, 0.1, 0.2, 0.3):
        shifted = model.predict_proba(live + noise.normal(0, severity, live.shape))
        true = float((shifted.argmax(axis=1) == labels[1200:]).mean())
        found = expected(shifted.max(axis=1), sure, right)
        off[severity] = found.point - true
        assert found.low(0.005) < found.point < found.high(0.005)
    assert max(map(abs, off.values())) < 0.06, off
    # Labels that change their meaning leave the inputs, and so the estimate, as they are.
    untouched = model.predict_proba(live)
    assert (
        expected(untouched.max(axis=1), sure, right).point
        > 0.85
        > float((untouched.argmax(axis=1) == (labels[1200:] + 1) % 10).mean())
    )


def test_a_calibration_takes_rows_with_labels() -> None:
    with pytest.raises(ValueError, match="takes 100"):
        calibrated(np.linspace(0, 1, 99), np.ones(99, bool))
    found = calibrated(np.linspace(0, 1, 100), np.arange(100) >= 50)
    np.testing.assert_allclose(found(np.array([0.1, 0.9])), [0, 1])


def test_any_figure_is_expected_by_labels_that_are_drawn() -> None:
    generator = np.random.default_rng(0)

    def rows(count: int, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Rows of three classes, and probabilities that are too sure of themselves."""
        logits = generator.normal([shift, 0, 0], size=(count, 3))
        true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        labels = (generator.random((count, 1)) > true.cumsum(axis=1)).sum(axis=1)
        powers = np.exp(3 * logits)
        return powers / powers.sum(axis=1, keepdims=True), labels

    (known, wanted), (live, hidden) = rows(2000), rows(1000, shift=1.0)
    predicted = live.argmax(axis=1)

    def recall_of_the_second(labels: np.ndarray, rows: np.ndarray) -> float:
        own = labels[rows] == 1
        return float((predicted[rows] == 1)[own].mean()) if own.any() else float("nan")

    found = expected_figure(lambda labels: lambda rows: recall_of_the_second(labels, rows), live, known, wanted)
    true = recall_of_the_second(hidden, np.arange(1000))
    assert abs(found.point - true) < 0.06 and found.low(0.005) < true < found.high(0.005)
    trusting = float(live[:, 1][predicted == 1].sum() / live[:, 1].sum())
    assert abs(found.point - true) < abs(trusting - true), "what the model says of itself is further off"
    shares = calibrated_classes(known, wanted)(live)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    with pytest.raises(ValueError, match="metrics of up to 100"):
        calibrated_classes(np.zeros((200, 101)), np.zeros(200, int))
