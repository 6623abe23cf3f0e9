"""What `hone drift check` says of traffic that stays, moves, is thin, comes back each week, or can't be read."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hone.cli.main import cli
from hone.errors import HoneError
from hone.lifecycle.drift.check import Question, budget_of, check
from hone.lifecycle.drift.findings import Drift, Finding
from tests.lifecycle.drift.traffic import NOW, NOW_S, Stored, normal, stored

MOVED = "input.features[1]"


@pytest.fixture
def model(tmp_path: Path) -> Stored:
    return stored(tmp_path)


def look(model: Stored, **question: object) -> Drift:
    return check("dense", model.folder, Question(**question), NOW_S)  # type: ignore[arg-type]


def column(drift: Drift, name: str = MOVED) -> Finding:
    return next(one for one in drift.findings if one.column == name)


def test_traffic_like_the_proofs_is_no_drift(model: Stored) -> None:
    model.hours(range(NOW - 20, NOW + 1), 200)
    found = look(model)
    assert found.verdict == "met" and found.headline().startswith("no drift")
    assert {one.verdict for one in found.findings} == {"met"} and found.rows >= 2000


def test_what_moved_is_found_and_named(model: Stored) -> None:
    model.hours(range(NOW - 20, NOW - 1), 200)
    model.hours((NOW - 1, NOW), 250, shift=0.6, seed=1)
    found = look(model)
    assert found.verdict == "missed" and MOVED in [one.column for one in found.drifted]
    moved = column(found)
    assert 0.1 < moved.low < moved.effect < moved.high and moved.what.startswith("up to") and moved.hours == 2
    assert moved.before - moved.after == pytest.approx(moved.effect, abs=0.03)
    assert moved.ks == pytest.approx(0.236, abs=0.06)  # of normal distributions 0.6 apart
    assert moved.wasserstein == pytest.approx(0.6 / 2.563, abs=0.06)
    assert column(found, "input.features[0]").verdict != "missed"


def test_version_that_never_served_is_judged_by_what_others_were_asked(tmp_path: Path, model: Stored) -> None:
    moved = normal(np.random.default_rng(5), 3000, shift=0.6)
    stored(tmp_path, moved, version="v2")
    model.hours((NOW - 1, NOW), 1500, shift=0.6, seed=1)
    old, new = (check(f"dense:{one}", model.folder, Question(unserved=True), NOW_S) for one in ("v1", "v2"))
    assert old.verdict == "missed" and new.verdict == "met" and new.rows == 3000
    assert {one.group for one in new.findings} == {"input.features"}
    assert check("dense:v2", model.folder, Question(), NOW_S).rows == 0


def test_too_few_rows_are_undecided_and_say_what_they_would_show(model: Stored) -> None:
    model.hours((NOW,), 30, shift=2.0)
    found = look(model)
    assert found.verdict == "missed"  # much has moved: that shows in few rows
    model.hours((NOW,), 30)
    found = look(model)
    assert found.verdict == "undecided" and "too thin: 30 rows of the" in found.headline()
    assert column(found).smallest > 0.3 and (column(found).needed or 0) > 200


def test_no_traffic_is_undecided(model: Stored) -> None:
    assert look(model).headline() == "undecided: no traffic of dense:v1 is sketched in this time"


def test_rows_of_one_request_are_not_taken_for_many_witnesses(model: Stored) -> None:
    from hone.sketches.folder import write
    from hone.sketches.window import About, Window

    generator = np.random.default_rng(3)
    window = Window.empty(About("dense", "v1", NOW, model.digest), model.references.names)
    for _ in range(30):  # each a patient with sixteen measurements that are all alike
        rows = np.repeat(generator.normal(size=(1, 4)).astype(np.float32), 16, axis=0)
        window.add(model.references, [({"features": rows}, {})])
    write(model.folder, window, "a")
    found = column(look(model))
    assert found.rows == 480 and found.independent <= 35 and found.verdict == "undecided"


def test_season_of_earlier_weeks_is_no_drift_but_another_change_is(model: Stored) -> None:
    for week in (1, 2, 3):
        model.hours(range(NOW - 168 * week - 3, NOW - 168 * week + 1), 300, shift=0.6, seed=week)
    model.hours(range(NOW - 3, NOW + 1), 300, shift=0.6, seed=9)
    found = look(model)
    assert column(found).verdict == "met" and "earlier weeks" in column(found).note and not found.drifted
    model.hours(range(NOW - 3, NOW + 1), 300, shift=-0.6, seed=10)
    assert column(look(model)).verdict == "missed"


def test_rollout_is_no_drift_and_other_versions_inputs_are_history(tmp_path: Path, model: Stored) -> None:
    for week in (1, 2):
        model.hours(range(NOW - 168 * week - 3, NOW - 168 * week + 1), 300, shift=0.6, seed=week)
    newer = stored(tmp_path, version="v2")
    newer.hours(range(NOW - 3, NOW + 1), 300, shift=0.6, seed=9)
    found = check("dense:v2", newer.folder, Question(), NOW_S)
    assert column(found).verdict == "met"
    assert all(one.group == "output.scores" for one in found.drifted)  # what it answers has no history of its own


def test_broken_files_other_references_and_wrong_clocks_cost_themselves_only(model: Stored) -> None:
    model.hours(range(NOW - 8, NOW + 1), 300)
    file = min(model.folder.rglob("a.sketch"))
    file.write_bytes(file.read_bytes()[:50])
    Stored(model.folder, model.references, "0" * 64, "v1").hours((NOW - 9,), 300, shift=3)
    model.hours((NOW + 200,), 300, shift=3)
    found = look(model)
    assert found.verdict == "met"
    told = " ".join(found.problems)
    assert len(found.problems) == 3 and "broken" in told and "another reference" in told and "still to come" in told


def test_windows_and_since_say_what_is_looked_at(model: Stored) -> None:
    model.hours(range(NOW - 30, NOW - 9), 300, shift=0.6)
    model.hours(range(NOW - 9, NOW + 1), 300)
    assert look(model, window=5).verdict == "met"
    assert look(model, since=NOW - 30).verdict == "missed"
    assert {one.hours for one in look(model, window=5).findings} == {5}


def test_what_moved_to_where_the_calibration_rows_are_says_so(tmp_path: Path) -> None:
    calibration = normal(np.random.default_rng(4), 3000, shift=0.6)
    model = stored(tmp_path, calibration=calibration)
    model.hours((NOW - 1, NOW), 1500, shift=0.6, seed=1)
    found = look(model)
    assert found.calibration_rows == 3000 and found.reference_rows == 3000
    assert column(found).verdict == "missed" and "like the calibration rows" in column(found).note


def test_artifact_without_a_reference_and_a_missing_folder_are_named(tmp_path: Path, model: Stored) -> None:
    from tests.servers import put

    put(tmp_path, tmp_path / "older", "older", "v0")
    with pytest.raises(HoneError, match="holds no reference"):
        check("older", model.folder, Question(), NOW_S)
    with pytest.raises(HoneError, match="HONE_DRIFT_DIR"):
        check("dense", tmp_path / "nowhere", Question(), NOW_S)


def test_commands_exit_by_verdict_and_print_or_draw_it(
    tmp_path: Path, model: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW_S)
    monkeypatch.setenv("HONE_DRIFT_DIR", str(model.folder))

    def run(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["drift", *arguments])
        return done.exit_code, done.output

    assert run("check", "dense")[0] == 4
    model.hours(range(NOW - 9, NOW + 1), 300)
    code, text = run("check", "dense", "--window", "2d")
    assert code == 0 and "no drift" in text
    model.hours((NOW - 1, NOW), 300, shift=0.6)
    code, text = run("check", "dense", "--json", "--since", "2h")
    found = json.loads(text)
    assert (code, found["verdict"]) == (3, "drift") and {one["verdict"] for one in found["findings"]} >= {"drift"}
    page = tmp_path / "drift.html"
    assert run("report", "dense", "--html", str(page))[0] == 0
    assert "drift in" in page.read_text() and page.read_text().count("<svg") >= 3
    code, text = run("watch", "dense", "--once", "--textfile", str(tmp_path / "drift.prom"))
    assert code == 3 and "drift in" in text
    series = (tmp_path / "drift.prom").read_text()
    assert 'hone_drift_detected{group="input.features",model="dense",version="v1"} 1.0' in series
    assert run("watch", "nothing", "dense", "--once")[0] == 3 and run("watch", "nothing", "--once")[0] == 1
    assert run("check", "dense", "--window", "5x")[0] == 2 and run("check", "dense", "--since", "soon")[0] == 2


@pytest.mark.parametrize(
    "name", ["digits", *(pytest.param(name, marks=pytest.mark.slow) for name in ("diabetes", "wine", "breast_cancer"))]
)
def test_real_rows_split_by_a_feature_drift_and_split_by_chance_do_not(tmp_path: Path, name: str) -> None:
    from sklearn import datasets

    from hone.evidence.shifts import largest_change
    from hone.lifecycle.drift.counting import of_reference, of_window
    from hone.signature import Signature, TensorSpec
    from hone.sketches.reference import make_references
    from hone.sketches.window import About, Window

    rows = getattr(datasets, f"load_{name}")().data.astype(np.float32)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    signature = Signature(inputs=(TensorSpec(name="x", shape=("batch", rows.shape[1])),))

    def drifted(known: np.ndarray, live: np.ndarray) -> set[str]:
        references = make_references(signature, {"x": known}, {}, private=False)
        assert references is not None
        window = Window.empty(About("m", "v", 1), references.names)
        window.add(references, [({"x": one}, {}) for one in np.split(live, len(live))])
        total = sum(len(one.sets()[1]) for one in references.columns)
        return {
            one.column.name
            for place, one in enumerate(references.columns)
            for doubts in [budget_of().doubts(2 * len(one.sets()[1]), 2 * total)]
            if largest_change(of_window(window, place, one), of_reference(one), one.sets()[0], *doubts).verdict(0.1)
            == "missed"
        }

    half = len(rows) // 2
    assert drifted(rows[:half], rows[half:]) == set()
    by = rows[:, 2 if name != "digits" else 20]
    split = by > np.median(by)
    found = drifted(rows[~split], rows[split])
    assert any(found), name
    assert len(found) >= (2 if name != "wine" else 1)


def test_shift_of_all_inputs_together_is_told_by_a_classifier(tmp_path: Path, model: Stored) -> None:
    from hone import store
    from hone.evidence.shifts import Budget
    from hone.lifecycle.drift.joint import joint
    from hone.services.observe.recording import Recorder
    from hone.store.rows import keep_rows

    entry = store.resolve("dense")
    generator = np.random.default_rng(0)
    keep_rows(entry.path, {"features": normal(generator, 1500)})
    for number, together in enumerate((False, True)):
        rows = normal(generator, 1500)
        if together:  # each feature as before, but two of them move as one
            rows[:, 1] = 0.95 * rows[:, 0] + (1 - 0.95**2) ** 0.5 * rows[:, 1]
        recorder = Recorder(tmp_path / f"recorded{number}")
        recorder.offer("dense", "v1", "r", {"features": rows}, {"scores": rows[:, :3]}, 0.001)
        recorder.close()
        found = joint(entry, tmp_path / f"recorded{number}", 0.0, 0.1, Budget())
        assert (found.verdict == "missed") is together and found.rows == 1500
    with pytest.raises(HoneError, match="no traffic of dense:v1 was recorded"):
        joint(entry, tmp_path / "recorded1", time.time() + 60, 0.1, Budget())
