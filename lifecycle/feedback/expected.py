"""The accuracy to expect before there are labels, by how sure the model is; see hone/evidence/live/confidence.py."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hone.converters.proof.judge import Judge
from hone.converters.proof.labels import pairs
from hone.converters.proof.metrics.of_probabilities import probabilities
from hone.errors import RecipeError
from hone.evidence.live.confidence import expected
from hone.evidence.live.quality import Estimate, loss

from .baseline import Baseline
from .findings import Expected, Interval
from .joined import Joined

MOST_ROWS = 1000
"""Of the newest answers."""


def expected_of(
    rows: Sequence[Joined], known: Baseline, warn: float, confidence: float, problems: list[str]
) -> Expected | None:
    """Return what is to be expected of the newest answers; None, with a reason where people may wonder, if nothing is.

    Args:
        rows: answers, with labels or without.
        known: of the proof; the calibration is learned from its rows.
        warn: loss from which people are warned.
        confidence: of the bounds.
        problems: get the reason.
    """
    judge = next((one for one in known.judges if one.metric and one.metric.reads in ("classes", "probabilities")), None)
    if judge is None or not rows:
        return None
    if known.labels is None:
        problems.append("no estimate without labels: no rows of the proof are kept here to learn a calibration from")
        return None
    try:
        scores = _scores(judge, known)
        newest = [one.outputs[scores] for one in rows[-MOST_ROWS:] if scores in one.outputs]
        if not newest:
            raise ValueError(f"output '{scores}' is not kept beside answers")
        live = np.concatenate(newest)[-MOST_ROWS:]
        found, proof = _estimates(judge, known, scores, live)
    except (RecipeError, ValueError) as error:
        problems.append(f"no estimate without labels: {error}")
        return None
    doubt = (1 - confidence) / 2
    lost = loss(found, proof, higher_is_better=True, doubt=doubt, sure=doubt)
    state = lost.state(warn, float("inf"))
    if state == "holds" and lost.high > warn:
        state = "undecided"
    live_interval = Interval(found.point, found.low(doubt), found.high(doubt), len(live))
    proof_interval = Interval(proof.point, proof.low(doubt), proof.high(doubt), proof.rows)
    return Expected(live_interval, proof_interval, lost.point, lost.low, lost.high, state)


def _scores(judge: Judge, known: Baseline) -> str:
    """Return the output that says how sure the model is: the metric's own, or beside classes the one of their scores.

    Raises:
        ValueError: there is none.
    """
    for name in (judge.output, *known.outputs):
        array = known.outputs[name]
        if array.dtype.kind == "f" and (name == judge.output or (array.ndim == 2 and array.shape[1] > 1)):
            return name
    raise ValueError("no output says how sure the model is")


def _estimates(judge: Judge, known: Baseline, scores: str, live: np.ndarray) -> tuple[Estimate, Estimate]:
    """Return the accuracy to expect of live rows, and that of the proof's rows.

    Args:
        scores: the output with a score for each class.
        live: that output of live rows.

    Raises:
        RecipeError: the output holds no scores of classes.
        ValueError: too few rows.
    """
    assert known.labels is not None
    output = known.outputs[judge.output]
    predicted, wanted = pairs(output, output, known.labels)
    if predicted.shape != (len(output),):
        raise ValueError("a row has more than one class")
    right = predicted == wanted
    source = known.outputs[scores]
    sure = probabilities(source, source).max(axis=1)
    # Read as the proof's rows are: live ones may all be alike.
    found = expected(probabilities(live, source).max(axis=1), sure, right)
    return found, Estimate(float(right.mean()), len(right), right=float(right.sum()), least=0.0, most=1.0)
