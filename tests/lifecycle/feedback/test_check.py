"""Quality by labels that come later: what is called lost, what is not, and what is told without any label."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from hone import store
from hone.cli.main import cli
from hone.errors import HoneError
from hone.lifecycle.feedback.check import Question, check
from hone.lifecycle.feedback.gauges import Gauges
from hone.lifecycle.feedback.joined import joined
from hone.lifecycle.feedback.watch import Watch, to_tell
from hone.lifecycle.watching.alerts import AlertSettings, Webhook
from hone.lifecycle.watching.watch import Memory
from hone.recipe import load_recipe
from hone.store.rows import keep_rows
from hone.traffic.answered import Answered, place_of, to_table, write_part
from hone.traffic.feedback import Feedback, append
from tests.lifecycle.registry.versions import proven, with_terms
from tests.models.dense import FEATURES, dense_answer

HOUR_S = 3600.0
SHARE = 0.85
"""Of the rows of the proof that the model gets right."""


def labels_of(rows: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    """Return labels of which the model gets a share right: wrong ones where it is least sure."""
    scores = dense_answer(rows)
    ordered = np.sort(scores, axis=1)
    gap = ordered[:, -1] - ordered[:, -2] + generator.normal(0, 0.2, len(rows))
    best, second = scores.argsort(axis=1)[:, -1], scores.argsort(axis=1)[:, -2]
    return np.where(gap >= np.quantile(gap, 1 - share), best, second)


RECIPE = """
name: dense
source: {{file: model.onnx}}
evaluation: rows.npz
quality: {metrics}
variants: [onnx-fp32]
"""


@dataclass(frozen=True)
class Shop:
    """A stored model that was proven, and the folder of its answers."""

    folder: Path
    entry: store.Entry

    def traffic(
        self, count: int, share: float = SHARE, *, labeled: bool = True, days_ago: float = 0.5, unsure: bool = False
    ) -> list[tuple[str, int]]:
        """Write answered requests; of these a share is right. Return their ids and labels."""
        generator = np.random.default_rng(count)
        rows = generator.normal(size=(count * (4 if unsure else 1), FEATURES)).astype(np.float32)
        if unsure:  # near the borders between classes
            ordered = np.sort(dense_answer(rows), axis=1)
            rows = rows[(ordered[:, -1] - ordered[:, -2]).argsort()[:count]]
        scores, labels = dense_answer(rows), labels_of(rows, share, generator)
        start = time.time() - days_ago * 24 * HOUR_S
        answers = [
            Answered(int((start + 3 * place) * 1e6), f"r{count}-{place}", outputs={"scores": scores[place : place + 1]})
            for place in range(count)
        ]
        by_hour: dict[int, list[Answered]] = {}
        for one in answers:
            by_hour.setdefault(one.time_us // 3_600_000_000, []).append(one)
        for hour, some in by_hour.items():
            write_part(place_of(self.folder, "dense", self.entry.version, hour), f"w{count}", 1, to_table(some), None)
        pairs = [(one.request_id, int(label)) for one, label in zip(answers, labels, strict=True)]
        if labeled:
            self.label(pairs)
        return pairs

    def label(self, pairs: list[tuple[str, int]]) -> None:
        now = time.time()
        append(self.folder, "dense", [Feedback(one, label, {}, now) for one, label in pairs], "w", None, now)

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(cli, ["feedback", *arguments, "--dir", str(self.folder)])


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    entry = with_terms(proven(tmp_path, "a"))
    generator = np.random.default_rng(7)
    rows = generator.normal(size=(1000, FEATURES)).astype(np.float32)
    keep_rows(entry.path, {"features": rows}, labels_of(rows, SHARE, generator))
    folder = tmp_path / "feedback"
    folder.mkdir()
    return Shop(folder, entry)


def test_quality_that_holds_is_lost_and_is_back(shop: Shop) -> None:
    shop.traffic(900, days_ago=3)
    held = shop.run("check", "dense:a")
    assert held.exit_code == 0 and "holds: accuracy 0.8" in held.output, held.output
    shop.traffic(700, share=0.6, days_ago=1)
    lost = shop.run("check", "dense:a", "--json")
    found = json.loads(lost.output)
    assert lost.exit_code == 3 and found["state"] == "act" and found["measured"][0]["look"] == "short"
    assert found["measured"][0]["loss_low"] > 0.10 and len(found["measured"]) == 2
    assert shop.run("check", "dense:a", "--warn", "0.4", "--act", "0.5").exit_code == 0


def test_few_labels_decide_nothing_and_say_how_many_would(shop: Shop) -> None:
    pairs = shop.traffic(600, share=0.78, labeled=False)
    assert shop.run("check", "dense:a").exit_code in (4, 5)
    shop.label(pairs[:60])
    few = shop.run("check", "dense:a")
    assert "60 of 600 answers have labels" in few.output
    found = check("dense:a", shop.folder, Question())
    measured = found.measured[0]
    assert (measured.state, found.labeled) == ("undecided", 60) and measured.needed is not None


def test_an_estimate_warns_before_there_are_labels_and_never_acts(shop: Shop) -> None:
    shop.traffic(1500, labeled=False)
    calm = check("dense:a", shop.folder, Question())
    assert calm.measured == () and calm.expected is not None
    assert calm.expected.live.low <= SHARE <= calm.expected.live.high and calm.state in ("undecided", "holds")
    shop.traffic(1100, labeled=False, days_ago=0.1, unsure=True)
    shaken = shop.run("check", "dense:a")
    assert shaken.exit_code == 5 and "estimate without labels" in shaken.output


def test_every_metric_of_classes_is_estimated_and_one_that_cannot_be_says_why(shop: Shop, tmp_path: Path) -> None:
    pairs = shop.traffic(1000, labeled=False)
    recipe = tmp_path / "recipe.yaml"
    metrics = ["f1", "recall", "log_loss"]
    recipe.write_text(RECIPE.format(metrics=json.dumps([{"metric": one} for one in metrics])))
    found = check("dense:a", shop.folder, Question(), loaded=load_recipe(recipe))
    assert [one.metric for one in found.estimates] == ["accuracy", *metrics] and found.expected is not None
    shop.label(pairs)
    shown = check("dense:a", shop.folder, Question(), loaded=load_recipe(recipe)).measured
    for one in found.estimates[1:]:
        (true,) = (other.live.value for other in shown if (other.metric, other.look) == (one.metric, "long"))
        assert one.live.low < true < one.live.high, (one, true)
    assert found.as_json()["expected"]["metric"] == "accuracy" and len(found.as_json()["estimates"]) == 4
    gauges = Gauges()
    gauges.show(found, time.time())
    gauges.write(tmp_path / "quality.prom")
    series = (tmp_path / "quality.prom").read_text()
    assert 'hone_quality_estimated{metric="log_loss",model="dense",version="a"}' in series
    assert 'hone_quality_expected{model="dense",version="a"}' in series
    recipe.write_text(RECIPE.format(metrics=json.dumps([{"metric": "rmse"}])))
    without = check("dense:a", shop.folder, Question(), loaded=load_recipe(recipe))
    assert not without.estimates and any("a number doesn't say how sure" in one for one in without.problems)


def test_without_kept_rows_the_proof_s_report_is_what_there_is(shop: Shop) -> None:
    store.rows.forget_rows(shop.entry.path)
    shop.traffic(300)
    found = check("dense:a", shop.folder, Question())
    assert found.measured == () and any("no rows of its proof are kept here" in one for one in found.problems)


def test_labels_that_do_not_fit_are_told_of(shop: Shop) -> None:
    pairs = shop.traffic(40, labeled=False)
    shop.label(pairs[:39])
    append(shop.folder, "dense", [Feedback(pairs[39][0], [0, 1, 2], {}, time.time())], "w", None, time.time())
    found = check("dense:a", shop.folder, Question())
    assert found.labeled == 39 and "1 labels fit neither" in " ".join(found.problems)


def test_a_label_counts_within_its_window_only(shop: Shop) -> None:
    shop.traffic(50, days_ago=2)
    near, far = (
        [one.label is not None for one in joined(shop.folder, "dense", within_s=days * 86_400)] for days in (3, 1)
    )
    assert all(near) and not any(far)


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_labels_are_imported_from_files(shop: Shop, tmp_path: Path, kind: str) -> None:
    pairs = [*shop.traffic(30, labeled=False), ("of-another", 1)]
    file = tmp_path / f"labels.{kind}"
    names = ["request_id", "label", "figures.revenue"]
    rows = [(one, label, 2.5) for one, label in pairs]
    if kind == "csv":
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([names, *rows])
    elif kind == "parquet":
        pq.write_table(pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), file)
    else:
        lines = [{"request_id": one, "label": label, "figures": {"revenue": 2.5}} for one, label in pairs]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = shop.run("import", str(file), "--model", "dense")
    assert done.exit_code == 0 and "31 entries, 30 of them about" in done.output, done.output
    assert shop.run("import", str(file), "--model", "dense").exit_code == 0, "once more changes nothing"
    found = list(joined(shop.folder, "dense"))
    assert [(one.request_id, one.label) for one in found] == pairs[:30]
    assert {one.figures["revenue"] for one in found} == {2.5}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("request_id,label\nx,1\ny,\n", "line 3: neither label nor figures"),
        ("id,label\nx,1\n", "line 2: no such field: id"),
        ("request_id,label\nx\n", "line 2: has not as many columns"),
        ("request_id,label,figures.revenue\nx,1,much\n", "figures.revenue"),
        ("", "no rows"),
    ],
)
def test_a_file_with_a_wrong_row_brings_nothing(shop: Shop, tmp_path: Path, content: str, said: str) -> None:
    shop.traffic(30, labeled=False)
    (tmp_path / "labels.csv").write_text(content)
    refused = shop.run("import", str(tmp_path / "labels.csv"), "--model", "dense")
    assert refused.exit_code == 1 and said in refused.output
    assert all(one.label is None for one in joined(shop.folder, "dense"))


def test_wrong_names_are_one_line(shop: Shop, tmp_path: Path) -> None:
    shop.traffic(30)
    for arguments, said in (
        (["import", "gone.csv", "--model", "dense"], "can't be read"),
        (["import", "labels.txt", "--model", "dense"], "must be one of"),
        (["import", "gone.csv", "--model", "dance"], "there is dense"),
        (["check", "dance"], "dance"),
        (["check", "dense:a", "--warn", "0.5"], "warn is not over act"),
    ):
        refused = shop.run(*arguments)
        assert refused.exit_code == 1 and said in refused.output, (arguments, refused.output)
    with pytest.raises(HoneError, match="not a folder"):
        check("dense:a", tmp_path / "nowhere", Question())


def test_a_watch_tells_once_and_shows_gauges(shop: Shop, tmp_path: Path) -> None:
    shop.traffic(700, share=0.6)
    lost = check("dense:a", shop.folder, Question())
    memory = Memory()
    first = to_tell(lost, memory, 3600, 0.0)
    assert first is not None and first.state == "quality" and "act: accuracy" in first.title
    assert to_tell(lost, memory, 3600, 60.0) is None and to_tell(lost, memory, 3600, 4000.0) is not None
    once = shop.run("watch", "dense:a", "--once", "--textfile", str(tmp_path / "quality.prom"))
    assert once.exit_code == 3, once.output
    series = (tmp_path / "quality.prom").read_text()
    assert 'hone_quality_state{model="dense",state="act",version="a"} 1.0' in series
    assert 'hone_quality_loss_low{look="short",metric="accuracy",model="dense",version="a"}' in series
    drawn = shop.run("report", "dense:a", "--html", str(tmp_path / "quality.html"))
    assert drawn.exit_code == 0, drawn.output
    page = (tmp_path / "quality.html").read_text()
    assert "act: accuracy" in page and "<svg" in page


def test_an_alert_that_reached_nobody_is_told_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.traffic(700, share=0.6)
    monkeypatch.setattr("hone.lifecycle.watching.watch.send", lambda *_: ["webhook: not reached"])
    memory = Memory()
    lost = check("dense:a", shop.folder, Question())
    settings = AlertSettings(webhooks=(Webhook(url="env:NOBODY"),))
    Watch(["dense:a"], lambda _: lost, Gauges(), settings, memory, say=lambda _: None).turn()
    assert memory.told == {}
