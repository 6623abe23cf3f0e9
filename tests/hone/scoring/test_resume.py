"""Runs that are stopped, in every way, and go on."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from hone import store
from hone.scoring import parts as parts_module
from hone.scoring import run as scoring
from hone.scoring.errors import ScoreError
from hone.scoring.parts import Parts
from hone.scoring.run import Request, score
from tests.hone.scoring import answers, features, quick, run, stored, table
from tests.models.dense import dense_answer
from tests.servers import ROOT

ROWS = features(1000)


@pytest.fixture
def source(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    tag = stored(home, tmp_path)
    quick(monkeypatch, tag, store.resolve("dense").opened().digest)
    parquet.write_table(table(ROWS), tmp_path / "rows.parquet", row_group_size=300)
    return tmp_path / "rows.parquet"


KILLED = """
import os, signal, sys
from pathlib import Path
from hone.scoring import parts, run
from hone.scoring.run import Request, score

run.BLOCK_ROWS = 64
source, out = map(Path, sys.argv[1:])
written = [0]

def kill(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

class Stream:
    def __init__(self, file):
        self.file = file
    def __enter__(self):
        self.stream = self.file.open("wb")
        self.stream.write(b"half of a")
        self.stream.flush()
        kill()
    def __exit__(self, *_):
        pass

def in_a_part(file):
    written[0] += 1
    return Stream(file.with_name("." + file.name)) if written[0] == 2 else whole(file)

whole = parts.atomic_stream
for point in ("in a part", "in the answers", "after the answers"):
    child = os.fork()
    if not child:
        if point == "in a part":
            parts.atomic_stream = in_a_part
        elif point == "in the answers":
            parts.atomic_stream = lambda file: Stream(file.with_name("." + file.name)) if file == out else whole(file)
        else:
            parts._throw_away = kill
        score(Request("dense", source, out, keep=("id",), every_s=0), lambda *_: None)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    folder = parts.folder_of(out)
    print(point, os.WTERMSIG(status), len([*folder.glob("0*.arrow")]), out.exists(), flush=True)
"""


def test_a_run_that_is_killed_goes_on_and_answers_each_row_once(source: Path, tmp_path: Path) -> None:
    out, unbroken = tmp_path / "out.parquet", tmp_path / "unbroken.parquet"
    command = [sys.executable, "-c", KILLED, str(source), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "in a part 9 1 False",
        "in the answers 9 16 False",
        "after the answers 9 16 True",
    ], done.stderr
    run("dense", source, unbroken, keep=("id",))
    found, expected = parquet.read_table(out), parquet.read_table(unbroken)
    assert found.column("id").to_pylist() == list(range(1000))
    assert found.equals(expected)  # to the last bit
    np.testing.assert_allclose(answers(out), dense_answer(ROWS), rtol=1e-5)
    with pytest.raises(ScoreError, match="exists already"):
        run("dense", source, out, keep=("id",))
    assert not parts_module.folder_of(out).exists()


def test_ctrl_c_keeps_what_is_done_and_says_so(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"

    def interrupt(done: int, *_: object) -> None:
        if done >= 320:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match=r"rows are kept in .*out.parquet.parts; the same command goes on"):
        score(Request("dense", source, out, keep=("id",)), interrupt)
    assert not out.exists()
    result = run("dense", source, out, keep=("id",))
    assert 320 <= result.resumed < 1000
    assert result.rows == 1000
    assert parquet.read_table(out).column("id").to_pylist() == list(range(1000))


def stop_after(rows: int, request: Request) -> None:
    """Run a request up to some rows."""

    def stop(done: int, *_: object) -> None:
        if done >= rows:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(request, stop)


def test_parts_of_another_run_are_not_mixed_in(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    stop_after(300, Request("dense", source, out, keep=("id",)))
    with pytest.raises(ScoreError, match="other columns were asked for; --restart throws them away"):
        run("dense", source, out, columns={"features": ("d", "c", "b", "a")})
    os.utime(source, (1, 1))
    with pytest.raises(ScoreError, match=r"the rows changed: it was of .*rows.parquet"):
        run("dense", source, out, keep=("id",))
    assert run("dense", source, out, keep=("id",), restart=True).resumed == 0


SWEPT = """
import os, signal, sys
from pathlib import Path
from hone.scoring import run
from hone.scoring.run import Request, score

run.BLOCK_ROWS = 64
source, out, left = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
whole = Path.unlink

def unlink(file, **options):
    whole(file, **options)
    if file.parent.name.endswith(".parts") and len([*file.parent.glob("*.arrow")]) == left:
        os.kill(os.getpid(), signal.SIGKILL)

Path.unlink = unlink
score(Request("dense", source, out, keep=("id",), every_s=0, restart=left == 3), lambda *_: None)
"""


def kept(out: Path) -> list[str]:
    return sorted(file.name for file in parts_module.folder_of(out).iterdir() if not file.name.startswith("."))


def swept(source: Path, out: Path, left: int) -> None:
    """Kill a run while it throws parts away."""
    command = [sys.executable, "-c", SWEPT, str(source), str(out), str(left)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_answers_that_are_half_thrown_away_are_of_the_run_that_they_are_of(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    swept(source, out, 2)
    assert out.exists()
    assert len(kept(out)) == 3 and kept(out)[-1] == "run.json"
    parquet.write_table(table(ROWS[::-1]), source, row_group_size=300)
    assert run("dense", source, out, keep=("id",), overwrite=True).resumed == 0
    np.testing.assert_allclose(answers(out), dense_answer(ROWS[::-1]), rtol=1e-5)
    out.unlink()
    stop_after(600, Request("dense", source, out, keep=("id",), every_s=0))
    swept(source, out, 3)  # with --restart
    parquet.write_table(table(ROWS), source, row_group_size=300)
    with pytest.raises(ScoreError, match="the rows changed"):
        run("dense", source, out, keep=("id",))


def test_parts_of_no_known_run_are_thrown_away(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    stop_after(300, Request("dense", source, out, keep=("id",)))
    (parts_module.folder_of(out) / "run.json").unlink()
    parquet.write_table(table(ROWS[::-1]), source, row_group_size=300)
    assert run("dense", source, out, keep=("id",)).resumed == 0
    np.testing.assert_allclose(answers(out), dense_answer(ROWS[::-1]), rtol=1e-5)


def test_rows_that_were_put_aside_arent_lost(source: Path, tmp_path: Path) -> None:
    out, aside = tmp_path / "out.parquet", tmp_path / "bad.jsonl"
    wrong = ROWS.copy()
    wrong[[3, 5]] = np.nan
    parquet.write_table(table(wrong), source, row_group_size=300)
    stop_after(300, Request("dense", source, out, keep=("id",), skip_bad=aside))
    assert not aside.exists()
    with pytest.raises(ScoreError, match=r"rows.parquet: 2 rows were put aside by a run before; give --skip-bad FILE"):
        run("dense", source, out, keep=("id",))
    assert not out.exists()
    result = run("dense", source, out, keep=("id",), skip_bad=aside)
    assert (result.rows, result.skipped, result.resumed) == (998, 2, 1000)
    assert [orjson.loads(line)["row"] for line in aside.read_bytes().splitlines()] == [3, 5]


def test_two_runs_dont_write_the_same_answers(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with parts_module.opened(out, restart=False), pytest.raises(ScoreError, match="another hone score writes it"):
        run("dense", source, out)


def test_a_full_disk_is_one_line_and_loses_nothing(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    stop_after(300, Request("dense", source, out, keep=("id",)))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"out\.parquet\.parts") as caught:
            run("dense", source, out, keep=("id",))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value).count("\n") == 0
    assert run("dense", source, out, keep=("id",)).resumed >= 300


def test_a_part_that_was_tampered_with_is_named(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    stop_after(300, Request("dense", source, out, keep=("id",)))
    part = next(parts_module.folder_of(out).glob("*.arrow"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ScoreError, match=r"\.arrow: can't be read: .*; remove it, and run the command again"):
        run("dense", source, out, keep=("id",))
    part.unlink()
    assert run("dense", source, out, keep=("id",)).rows == 1000


def test_rows_that_two_wrote_are_taken_once(source: Path, tmp_path: Path) -> None:
    stop_after(300, Request("dense", source, tmp_path / "out.parquet", keep=("id",)))
    folder = parts_module.folder_of(tmp_path / "out.parquet")
    (part,) = folder.glob("*.arrow")
    again = folder / f"{0:012d}-{64:012d}.arrow"
    again.write_bytes(part.read_bytes())
    earlier = parts_module.read_run(tmp_path / "out.parquet")
    assert earlier is not None
    assert [(one.first, one.file) for one in Parts(folder, earlier).done()] == [(0, part)]
    assert run("dense", source, tmp_path / "out.parquet", keep=("id",)).rows == 1000


@pytest.mark.parametrize("every_s", [0, 10], ids=["across parts", "in a part"])
def test_values_of_a_kept_column_may_change_their_kind(source: Path, tmp_path: Path, every_s: float) -> None:
    lines = [{"key": row if row < 500 else f"k{row}", "features": ROWS[row].tolist()} for row in range(1000)]
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(map(orjson.dumps, lines)))
    monkey = pytest.MonkeyPatch()
    monkey.setattr(scoring, "BLOCK_ROWS", 8)
    with monkey.context():
        run(
            "dense",
            tmp_path / "rows.jsonl",
            tmp_path / "o.parquet",
            keep=("key",),
            every_s=every_s,
            skip_bad=tmp_path / "b",
        )
    keys = parquet.read_table(tmp_path / "o.parquet").column("key").to_pylist()
    assert {*keys} >= {"0", "499", "k999"}


def test_kept_columns_of_any_kinds_come_together() -> None:
    columns = {
        "n": [1, 2.5, None],
        "flag": [True, 1, "yes"],
        "any": [[1, 2], {"a": 1}, "text"],
        "few": [{"a": 1}, {"b": 2}, None],
    }
    tables = [pa.table({name: pa.array([values[place]]) for name, values in columns.items()}) for place in range(3)]
    schema = parts_module._common([one.schema for one in tables])
    found = pa.concat_tables([parts_module._cast(one, schema) for one in tables])
    assert found.to_pylist() == [
        {"n": 1.0, "flag": "true", "any": "[1,2]", "few": {"a": 1, "b": None}},
        {"n": 2.5, "flag": "1", "any": '{"a":1}', "few": {"a": None, "b": 2}},
        {"n": None, "flag": "yes", "any": "text", "few": None},
    ]
    with pytest.raises(ScoreError, match="column 'n' can't be kept as double: Integer value 1152921504606846977 not"):
        parts_module._cast(pa.table({"n": [2**60 + 1]}), schema.remove(3).remove(2).remove(1))
