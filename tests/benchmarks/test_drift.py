"""Streams move by what they say, verdicts are counted right, and Hone looks at them as its watch does."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hone.benchmarks.drift.__main__ import entries, main
from hone.benchmarks.drift.judge import at_alarms, at_delay, delay, judge, of_columns, raised
from hone.benchmarks.drift.report import to_markdown
from hone.benchmarks.drift.streams import CHANGE, GROWTH, MOVES, PART, QUIET, RATE, Set, Stream, make_stream, part_grows
from hone.benchmarks.drift.tools import Looked, by_hone, by_peer
from hone.benchmarks.peers.description import Detector, Peer, detectors
from hone.benchmarks.peers.environment import environment
from hone.errors import HoneError

GENERATOR = np.random.default_rng(0)
SMALL = Set(
    "small",
    np.stack([GENERATOR.normal(size=900), GENERATOR.integers(0, 4, 900)], axis=1).astype(np.float32),
    np.arange(900) < 180,
    "a fifth of it",
)
"""A set of a number and a category."""


def variation(before: np.ndarray, after: np.ndarray) -> float:
    values, places = np.unique(np.concatenate([before, after]), return_inverse=True)
    counts = [np.bincount(one, minlength=len(values)) for one in np.split(places, [len(before)])]
    return float(np.abs(counts[0] / len(before) - counts[1] / len(after)).sum() / 2)


class TestStreams:
    @pytest.mark.parametrize("kind", MOVES)
    @pytest.mark.parametrize("seed", range(3))
    def test_one_column_moves_by_the_total_variation_that_is_claimed(self, kind: str, seed: int) -> None:
        change = MOVES[kind](SMALL, np.random.default_rng(seed))
        assert change is not None
        values = SMALL.rows[:, change.column]
        assert not np.isin(change.coming, change.leaving).any()
        assert change.chance * np.isin(values, change.leaving).mean() == pytest.approx(CHANGE)
        rows = change.draw(SMALL, np.random.default_rng(seed), 200_000)
        assert variation(values, rows[:, change.column]) == pytest.approx(CHANGE, abs=0.03)
        other = 1 - change.column
        assert variation(SMALL.rows[:, other], rows[:, other]) < 0.03

    def test_a_part_grows_by_what_is_claimed(self) -> None:
        numbered = Set("numbered", np.arange(900.0)[:, None], SMALL.part, "")
        rows = part_grows(numbered, np.random.default_rng(0), 100_000)
        assert (rows < 180).mean() == pytest.approx(0.2 + GROWTH, abs=0.01)

    def test_every_look_sees_whole_windows_that_end_an_hour_apart(self) -> None:
        stream = make_stream(SMALL, 0, days=2)
        rows, ends = stream.looks(QUIET)
        assert len(rows) == 48 * RATE and ends.tolist() == list(range(2000, 4801, RATE))
        rows, ends = stream.looks("column")
        assert (rows[:2000] == stream.quiet[-2000:]).all() and ends[0] == 2000 + RATE
        again = make_stream(SMALL, 0, days=2)
        assert (again.quiet == stream.quiet).all() and (again.ends[PART] == stream.ends[PART]).all()


class TestJudging:
    def test_an_alarm_is_counted_where_it_begins(self) -> None:
        assert raised(np.array([1, 1, 0, 0, 1, 0, 1, 1], bool)) == 3

    def test_delay_is_in_rows_and_infinite_where_nothing_is_found(self) -> None:
        assert delay(np.array([0.2, 0.9, 1.0, 0.1]), 1.0) == 3 * RATE
        assert delay(np.array([0.2, 0.9]), 1.0) == math.inf

    def test_score_of_a_share_of_the_columns_is_what_so_many_reach(self) -> None:
        scores = np.array([[0.1, 3.0, 0.5, 2.0]])
        assert of_columns(scores, 0.0) == [3.0] and of_columns(scores, 0.5) == [2.0]

    def test_rates_are_of_a_month_and_misses_are_counted(self) -> None:
        quiet = np.zeros(72)
        quiet[[3, 4, 9]] = 1.0
        found = judge([{QUIET: quiet, "column": np.array([0.0, 1.0])}, {QUIET: np.zeros(72), "column": np.zeros(2)}])
        assert found.alarms == 10.0 and found.low == 0.0 and found.high > 10
        assert found.calling == 3 / 144 and (found.missed, found.changes) == (1, 2)
        assert found.delays["column"] == math.inf
        assert found.as_json()["delays"]["all"] is None
        none = judge([{QUIET: np.zeros(720), "column": np.ones(1)}])
        assert (none.alarms, none.high) == (0.0, 3.0)

    def test_other_thresholds_are_as_quick_and_as_quiet(self) -> None:
        streams = [{QUIET: np.tile([0.5, 0.1], 72), "column": np.array([0.2, 0.4, 0.8])}]
        quick, quiet = at_delay(streams, 2 * RATE), at_alarms(streams, 0.0)
        assert quick is not None and 0.2 < quick.factor <= 0.4 and quick.calling == 0.5
        assert quiet is not None and quiet.calling == 0 and quiet.delays["column"] == 3 * RATE
        assert at_delay([{QUIET: np.zeros(9), "column": np.zeros(3)}], RATE) is None


def test_hone_is_quiet_and_finds_a_column_that_moves() -> None:
    stream = make_stream(SMALL, 0, days=2)
    short = Stream(stream.name, stream.reference, stream.quiet[:2500], {"column": stream.ends["column"][:1500]})
    (scores,) = by_hone(short).scores.values()
    assert len(scores[QUIET]) == 6 and not scores[QUIET].any()
    assert len(scores["column"]) == 15 and not scores["column"][0] and scores["column"].any()


def test_table_has_a_line_for_each_tool_and_threshold() -> None:
    scores = {QUIET: np.zeros(72), "column": np.array([0.0, 1.0])}
    noisy = {QUIET: np.tile([2.0, 0.0], 36), "column": np.array([0.0, 3.0])}
    results = entries({"hone": [Looked({"as shipped": scores}, 0.1)], "other": [Looked({"a column": noisy}, 0.2)]})
    report = {
        "sets": [{"name": "small"}], "seeds": 1, "days": 4, "rows_an_hour": RATE, "reference_rows": 3000,
        "host": {"cpu": "some", "cores": 2}, "results": results, "not_run": [{"name": "third", "error": "no network"}],
    }  # fmt: skip
    text = to_markdown(report)
    assert "| other | a column | as shipped | 360.0 (0.0 to —) | 50.00% | 200 |" in text
    assert "| other | a column | as quiet (x 2.0" in text and "- third: no network" in text


def test_unknown_names_are_one_line() -> None:
    for option, name in (("--set", "fare"), ("--peer", "nannyml2")):
        result = CliRunner().invoke(main, [option, name])
        assert result.exit_code == 2 and f"no '{name}'; did you mean" in result.output


def test_folder_that_can_not_be_made_is_one_line_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = CliRunner().invoke(main, ["--days", "2", "--seeds", "1", "--out", str(tmp_path / "file" / "out")])
    assert result.exit_code == 1 and result.output.splitlines()[1:] == [f"Error: {tmp_path}/file/out: Not a directory"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("peer", detectors(), ids=lambda peer: peer.name)
def test_each_peer_looks_at_the_same_moments(tmp_path: Path, peer: Peer[Detector]) -> None:
    whole = make_stream(SMALL, 0, days=2)
    stream = Stream("short", whole.reference, whole.quiet[:2500], {"column": whole.ends["column"][:1500]})
    try:
        environment(peer, tmp_path)
    except HoneError as error:
        pytest.skip(f"PyPI can't be reached: {error}")
    (found,) = by_peer(peer, tmp_path, [stream])
    for scores in found.scores.values():
        assert {part: len(one) for part, one in scores.items()} == {QUIET: 6, "column": 15}
        assert scores["column"][-1] > scores[QUIET].mean()
    assert found.seconds > 0
