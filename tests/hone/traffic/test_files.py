"""Files of answers and feedback: what a crash, a full hour, age and a broken disk make of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hone.lifecycle.feedback.joined import joined
from hone.services.feedback import collector as collecting
from hone.services.feedback.collector import Collector
from hone.signature import Signature, TensorSpec
from hone.traffic.answered import Answered, join_parts, kept_outputs, place_of, to_table, write_part
from hone.traffic.feedback import Feedback, append, files, read_feedback
from hone.traffic.keys import RecordKey, read_key

HOUR = 500_000
NOW_S = HOUR * 3600.0 + 60


def answers(count: int, start: int = 0, **values: str) -> list[Answered]:
    scores = np.arange(3, dtype=np.float32)[None]
    return [
        Answered(int(NOW_S * 1e6) + place, f"r{place}", outputs={"scores": scores + place}, **values)
        for place in range(start, start + count)
    ]


def test_the_parts_of_an_hour_become_one_file_with_the_same_rows(tmp_path: Path) -> None:
    place = place_of(tmp_path, "m", "1", HOUR)
    for number in range(3):
        write_part(place, "w", number, to_table(answers(4, 4 * number)), None)
    write_part(place, "other", 0, to_table(answers(1, 12)), None)
    before = list(joined(tmp_path, "m"))
    join_parts(tmp_path, place, "w", None)
    assert sorted(file.name for file in place.iterdir()) == ["other-000000.parquet", "w.parquet"]
    after = list(joined(tmp_path, "m"))
    assert [one.request_id for one in after] == [one.request_id for one in before] == [f"r{n}" for n in range(13)]
    np.testing.assert_array_equal(after[5].outputs["scores"], [[5, 6, 7]])


def test_answers_of_several_rows_and_none_kept_stand_side_by_side(tmp_path: Path) -> None:
    place = place_of(tmp_path, "m", "1", HOUR)
    many = Answered(int(NOW_S * 1e6), "many", outputs={"label": np.arange(5), "name": np.array(list("abcde"), object)})
    write_part(place, "w", 1, to_table([many, many]), None)
    write_part(place, "w", 2, to_table([Answered(int(NOW_S * 1e6), "none", arm="b", unit="u")]), None)
    join_parts(tmp_path, place, "w", None)
    found = {one.request_id: one for one in joined(tmp_path, "m")}
    assert found["many"].outputs["label"].tolist() == [0, 1, 2, 3, 4]
    assert found["many"].outputs["name"].tolist() == list("abcde")
    assert (dict(found["none"].outputs), found["none"].arm, found["none"].unit) == ({}, "b", "u")


def test_outputs_are_kept_when_their_size_is_known_and_small() -> None:
    shapes = {"small": ("batch", 10), "large": ("batch", 30, 30), "text": ("batch", "words"), "one": ("batch",)}
    outputs = tuple(TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items())
    assert kept_outputs(Signature(inputs=(), outputs=outputs)) == ("small", "one")
    assert kept_outputs(Signature(inputs=(), outputs=outputs), ["output.small"]) == ("one",)


@pytest.mark.parametrize("key", [None, RecordKey(bytes(32))])
def test_a_line_that_a_crash_left_torn_costs_itself_only(tmp_path: Path, key: RecordKey | None) -> None:
    append(tmp_path, "m", [Feedback("first", 1, {}, NOW_S)], "w", key, NOW_S)
    (file,) = files(tmp_path, "m")
    file.write_bytes(file.read_bytes() + (b'{"received": 1, "feedb' if key is None else b"~AAECAwQFBgcICQoLDA0O"))
    append(tmp_path, "m", [Feedback("second", 2, {}, NOW_S)], "w", key, NOW_S)
    assert {name: one.label for name, one in read_feedback(tmp_path, "m", key).items()} == {"first": 1, "second": 2}
    assert (b"first" in file.read_bytes()) == (key is None)


def test_old_hours_go_when_an_hour_begins(tmp_path: Path) -> None:
    now = [NOW_S]
    collector = Collector(tmp_path, flush_s=0.0, days=1.0, clock=lambda: now[0])
    collector.take("m", [Feedback("old", 1, {}, NOW_S)])
    old = place_of(tmp_path, "m", "1", HOUR)
    write_part(old, "w", 1, to_table(answers(3)), None)
    now[0] += 2 * 86_400
    write_part(place_of(tmp_path, "m", "1", HOUR + 48), "w", 1, to_table(answers(1)), None)
    collector.take("m", [Feedback("new", 1, {}, now[0])])
    collector.close()
    assert not old.exists() and set(read_feedback(tmp_path, "m")) == {"new"}


def test_what_is_too_much_or_cannot_be_written_is_counted_and_hurts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "MOST_WAITING", 5)
    monkeypatch.setattr(collecting, "TICK_S", 3600.0)
    collector = Collector(tmp_path, flush_s=3600)
    for number in range(8):
        collector.note(("m", "1"), b"%d" % number, {}, "", "", None)
    assert collector.stats.dropped == 3
    (tmp_path / "answered").write_text("in the way")
    collector.close()
    assert (collector.stats.answers, collector.stats.dropped) == (0, 8)


def test_a_key_is_read_in_every_spelling(tmp_path: Path) -> None:
    secret = bytes(range(32))
    for number, content in enumerate(
        (secret, secret.hex().encode() + b"\n", b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    ):
        (tmp_path / str(number)).write_bytes(content)
        assert read_key(tmp_path / str(number)) == RecordKey(secret)
    assert read_key("") is None
