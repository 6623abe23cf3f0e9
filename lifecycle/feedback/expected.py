"""What to expect before there are labels, by how sure the model is; see hone/evidence/live/confidence.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hone.converters.proof.judge import Judge
from hone.converters.proof.labels import pairs
from hone.converters.proof.metrics.of_probabilities import probabilities
from hone.errors import RecipeError
from hone.evidence.live.confidence import Scorer, expected, expected_figure
from hone.evidence.live.quality import Estimate, estimate, loss
from hone.signature import Tensors

from .baseline import Baseline
from .findings import Expected, Interval
from .joined import Joined

MOST_ROWS = 1000
"""Of the newest answers."""
ACCURACY = "accuracy"


@dataclass(frozen=True)
class _Rows:
    """Live answers beside the proof's rows, read alike: live ones may all be of one kind.

    Attributes:
        judge: whose output holds the classes, or their scores.
        known, live: outputs.
        shares, live_shares: [rows, classes] probabilities.
        predicted, wanted: classes of the proof's rows, as values.
    """

    judge: Judge
    known: Tensors
    live: Tensors
    shares: np.ndarray
    live_shares: np.ndarray
    predicted: np.ndarray
    wanted: np.ndarray

    def names(self) -> np.ndarray:
        """Return the class of each column of the scores.

        Raises:
            ValueError: the scores lie beside the classes, and which is whose doesn't show.
        """
        count = self.shares.shape[1]
        if self.known[self.judge.output].dtype.kind == "f" and self.wanted.dtype.kind == "f":
            return np.arange(count, dtype=np.float64)
        found = np.unique(np.concatenate([self.predicted, self.wanted]))
        if len(found) != count or (found[self.shares.argmax(axis=1)] != self.predicted).mean() > 0.1:
            raise ValueError(f"which of {count} scores is of which class doesn't show in the proof's rows")
        return found


def expected_of(
    rows: Sequence[Joined], known: Baseline, warn: float, confidence: float, problems: list[str]
) -> tuple[Expected, ...]:
    """Return what is to be expected of the newest answers, accuracy first; nothing, with a reason, if that is nothing.

    Args:
        rows: answers, with labels or without.
        known: of the proof; the calibration is learned from its rows.
        warn: loss from which people are warned.
        confidence: of the bounds of all together.
        problems: get the reason.
    """
    judges = [one for one in known.judges if one.metric and one.metric.reads in ("classes", "probabilities")]
    if not rows:
        return ()
    if not judges:
        problems.append(
            "no estimate without labels: a number doesn't say how sure the model is, and answers are kept without "
            "their inputs"
        )
        return ()
    if known.labels is None:
        problems.append("no estimate without labels: no rows of the proof are kept here to learn a calibration from")
        return ()
    others = [one for one in judges if one.name != ACCURACY]
    doubt = (1 - confidence) / 2 / (1 + len(others))
    try:
        read = _read(judges[0], known, rows)
        found = [_told(ACCURACY, len(read.live_shares), *_accuracy(read), True, warn, doubt)]
    except (RecipeError, ValueError) as error:
        problems.append(f"no estimate without labels: {error}")
        return ()
    for judge in others:
        try:
            found.append(
                _told(judge.name, len(read.live_shares), *_figure(judge, read), judge.higher_is_better, warn, doubt)
            )
        except (RecipeError, ValueError, KeyError) as error:
            problems.append(f"no estimate of {judge.name} without labels: {error}")
    return tuple(found)


def _read(judge: Judge, known: Baseline, rows: Sequence[Joined]) -> _Rows:
    """Return live answers and the proof's.

    Raises:
        RecipeError: the output holds no scores of classes.
        ValueError: none says how sure the model is, it is not kept beside answers, or a row has several classes.
    """
    assert known.labels is not None
    scores = _scores(judge, known)
    names = {scores, judge.output}
    newest = [one.outputs for one in rows[-MOST_ROWS:] if one.outputs.keys() >= names]
    if not newest:
        raise ValueError(f"output '{scores}' is not kept beside answers")
    live = {name: np.concatenate([one[name] for one in newest])[-MOST_ROWS:] for name in names}
    output, source = known.outputs[judge.output], known.outputs[scores]
    predicted, wanted = pairs(output, output, known.labels)
    if predicted.shape != (len(output),):
        raise ValueError("a row has more than one class")
    own = {name: known.outputs[name] for name in names}
    return _Rows(
        judge, own, live, probabilities(source, source), probabilities(live[scores], source), predicted, wanted
    )


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


def _accuracy(read: _Rows) -> tuple[Estimate, Estimate]:
    """Return the accuracy to expect of live rows, and that of the proof's.

    Raises:
        ValueError: too few rows.
    """
    right = read.predicted == read.wanted
    found = expected(read.live_shares.max(axis=1), read.shares.max(axis=1), right)
    return found, Estimate(float(right.mean()), len(right), right=float(right.sum()), least=0.0, most=1.0)


def _figure(judge: Judge, read: _Rows) -> tuple[Estimate, Estimate]:
    """Return another metric to expect of live rows, and that of the proof's.

    Raises:
        RecipeError: the metric can't read the answers.
        ValueError: too few rows, or classes that don't show.
        KeyError: it reads another output.
    """
    names, count, bounds = read.names(), len(read.wanted), judge.metric.bounds if judge.metric else (-np.inf, np.inf)
    both = {name: np.concatenate([read.known[name], read.live[name]]) for name in {judge.output}}

    def scorer(places: np.ndarray) -> Scorer:
        figure = judge.over_rows(both, both, np.concatenate([read.wanted, names[places]]))
        return lambda rows: figure(count + rows)

    right_places = np.array([np.flatnonzero(names == one)[0] for one in read.wanted])
    found = expected_figure(scorer, read.live_shares, read.shares, right_places, bounds)
    own = judge.over_rows(read.known, read.known, read.wanted)
    return found, estimate(own, np.arange(count), None, bounds)


def _told(
    metric: str, rows: int, found: Estimate, proof: Estimate, higher_is_better: bool, warn: float, doubt: float
) -> Expected:
    lost = loss(found, proof, higher_is_better=higher_is_better, doubt=doubt, sure=doubt)
    state = lost.state(warn, float("inf"))
    if state == "holds" and lost.high > warn:
        state = "undecided"
    live_interval = Interval(found.point, found.low(doubt), found.high(doubt), rows)
    proof_interval = Interval(proof.point, proof.low(doubt), proof.high(doubt), proof.rows)
    return Expected(live_interval, proof_interval, lost.point, lost.low, lost.high, state, metric)
