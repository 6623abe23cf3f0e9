from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from click.testing import CliRunner

from hone import store
from hone.cli.main import cli
from hone.errors import HoneError
from hone.scoring.errors import RowError, ScoreError
from tests.hone.scoring import NAMES, answers, features, quick, run, stored, table
from tests.models.dense import dense_answer
from tests.models.words import mean_of, words_artifact
from tests.plans import plan

ROWS = features(150)


@pytest.fixture
def dense(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    tag = stored(home, tmp_path)
    quick(monkeypatch, tag, store.resolve("dense").opened().digest)
    return tag


def write(folder: Path, kind: str) -> Path:
    """Write the rows in a format."""
    file = folder / f"rows.{kind}"
    if kind == "npz":
        np.savez(file, features=ROWS, id=np.arange(len(ROWS)))
    elif kind == "npy":
        np.save(file, ROWS)
    elif kind == "csv":
        lines = [",".join(map(repr, [i, *map(float, row)])) for i, row in enumerate(ROWS)]
        file.write_text("\n".join(["id,a,b,c,d", *lines, ""]))
    elif kind == "jsonl":
        file.write_bytes(b"".join(orjson.dumps({"id": i, "features": r.tolist()}) + b"\n" for i, r in enumerate(ROWS)))
    elif kind == "folder":
        file.mkdir()
        for index, part in enumerate(np.split(ROWS, [70, 71])):
            parquet.write_table(table(part, [0, 70, 71][index]), file / f"{index}.parquet", row_group_size=32)
    else:
        parquet.write_table(table(ROWS), file, row_group_size=40)
    return file


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "npz", "npy", "folder"])
def test_rows_of_every_format_are_answered_in_their_order(dense: str, tmp_path: Path, kind: str) -> None:
    keep = () if kind == "npy" else ("id",)
    result = run("dense", write(tmp_path, kind), tmp_path / "out.parquet", keep=keep)
    assert (result.rows, result.skipped, result.resumed) == (150, 0, 0)
    np.testing.assert_allclose(answers(tmp_path / "out.parquet"), dense_answer(ROWS), rtol=1e-5)
    if keep:
        ids = parquet.read_table(tmp_path / "out.parquet").column("id").to_pylist()
        assert [int(one) for one in ids] == list(range(150))
    assert not (tmp_path / "out.parquet.parts").exists()


def test_a_csv_from_excel_is_read(dense: str, tmp_path: Path) -> None:
    source = write(tmp_path, "csv")
    source.write_bytes(b"\xef\xbb\xbf" + source.read_bytes())
    run("dense", source, tmp_path / "out.parquet", keep=("id",))
    np.testing.assert_allclose(answers(tmp_path / "out.parquet"), dense_answer(ROWS), rtol=1e-5)


def test_the_output_says_what_answered(dense: str, tmp_path: Path) -> None:
    run("dense", write(tmp_path, "npy"), tmp_path / "out.parquet")
    facts = parquet.read_schema(tmp_path / "out.parquet").metadata
    assert facts[b"hone.model"].decode() == dense
    assert facts[b"hone.digest"].decode() == store.resolve("dense").opened().digest
    assert (facts[b"hone.rows"], facts[b"hone.skipped"]) == (b"150", b"0")


def test_batches_side_by_side_keep_the_order(dense: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = store.resolve("dense").opened().digest
    quick(monkeypatch, dense, digest, in_flight=2, inline=False, max_batch_rows=3)
    run("dense", write(tmp_path, "parquet"), tmp_path / "out.parquet", keep=("id",))
    np.testing.assert_allclose(answers(tmp_path / "out.parquet"), dense_answer(ROWS), rtol=1e-5)


def test_the_first_bad_row_is_named_and_the_same_command_goes_on_without_it(dense: str, tmp_path: Path) -> None:
    source, out, aside = write(tmp_path, "csv"), tmp_path / "out.parquet", tmp_path / "bad.jsonl"
    lines = source.read_text().splitlines()
    lines[101] = "100,1,two,3,4"
    lines[111] = "110,1,,3,4"
    lines[121] = "120,1"
    source.write_text("\n".join(lines))
    with pytest.raises(RowError, match=r"rows.csv: row 100: 'b' is 'two', expected float32; --skip-bad FILE"):
        run("dense", source, out, keep=("id",))
    assert not out.exists()
    result = run("dense", source, out, keep=("id",), skip_bad=aside)
    assert (result.rows, result.skipped, result.resumed) == (147, 3, 64)
    good = [i for i in range(150) if i not in (100, 110, 120)]
    assert parquet.read_table(out).column("id").to_pylist() == [str(i) for i in good]
    np.testing.assert_allclose(answers(out), dense_answer(ROWS[good]), rtol=1e-5)
    put_aside = [json.loads(line) for line in aside.read_text().splitlines()]
    assert [(row["row"], row["error"]) for row in put_aside] == [
        (100, "'b' is 'two', expected float32"),
        (110, "'b' is empty"),
        (120, "it has 2 cells, the header 5"),
    ]
    assert put_aside[0]["values"] == {"id": "100", "a": "1", "b": "two", "c": "3", "d": "4"}


def test_missing_and_infinite_values_are_rows_that_cant_be_used(dense: str, tmp_path: Path) -> None:
    column = pa.array([1.0, None, float("inf"), 2.0])
    parquet.write_table(pa.table(dict.fromkeys(NAMES, column)), tmp_path / "rows.parquet")
    result = run("dense", tmp_path / "rows.parquet", tmp_path / "out.parquet", skip_bad=tmp_path / "bad.jsonl")
    assert (result.rows, result.skipped) == (2, 2)
    errors = [json.loads(line)["error"] for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert errors == ["'a' is null", "input 'features' has NaN or infinity"]


def test_lines_that_are_no_json_or_of_another_kind_are_named(dense: str, tmp_path: Path) -> None:
    rows = ['{"features": [1, 2, 3, 4]}', "{oops", '{"features": "text"}', "[1]", '{"features": [1, 2, 3]}', "{}"]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    run("dense", tmp_path / "rows.jsonl", tmp_path / "out.parquet", skip_bad=tmp_path / "bad.jsonl")
    found = {one["row"]: one["error"] for one in map(json.loads, (tmp_path / "bad.jsonl").read_text().splitlines())}
    assert found[1].startswith("it is not JSON: ")
    assert found[2] == "'features' is text, where most rows have a list"
    assert found[3] == "it is JSON, but no object"
    assert "[1, 3], expected [batch, 4]" in found[4]
    assert found[5] == "'features' is null"
    np.testing.assert_allclose(answers(tmp_path / "out.parquet"), dense_answer(np.array([[1, 2, 3, 4]])), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ("key",)}, "there is no column 'key'"),
        ({}, "5 columns beside what is kept, but 'features' is float32"),
        ({"columns": {"feature": ("a",)}}, "there is no input 'feature'; did you mean 'features'"),
        ({"columns": {"features": ("a", "b")}}, "2 columns, but 'features' is float32"),
        ({"keep": ("id",), "out": "rows.txt"}, "answers go to a .parquet file"),
        ({"keep": ("id",), "model": "dens"}, "did you mean 'dense'"),
        ({"source": "none.csv"}, "none.csv: no such file"),
        ({"source": "artifact"}, "no .parquet file in this folder"),
    ],
)
def test_what_doesnt_fit_is_said_before_anything_is_written(
    dense: str, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    write(tmp_path, "parquet")
    asked = {"model": "dense", "source": "rows.parquet", "out": "out.parquet", **options}
    source, out = tmp_path / str(asked.pop("source")), tmp_path / str(asked.pop("out"))
    with pytest.raises(HoneError, match=message):
        run(str(asked.pop("model")), source, out, **asked)
    assert not [file for file in tmp_path.iterdir() if file.name.startswith("out.")]


def test_columns_in_another_order_are_named(dense: str, tmp_path: Path) -> None:
    run("dense", write(tmp_path, "parquet"), tmp_path / "out.parquet", columns={"features": ("d", "c", "b", "a")})
    np.testing.assert_allclose(answers(tmp_path / "out.parquet"), dense_answer(ROWS[:, ::-1]), rtol=1e-5)


def test_text_goes_through_the_steps_of_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = words_artifact(tmp_path / "words", post=("normalize",))
    store.put(artifact, "words", "onnx-fp32-1")
    quick(monkeypatch, "words:onnx-fp32-1", artifact.digest, pad=True)
    texts = [" ".join(["good", *["film"] * (row % 40)]) for row in range(100)]
    parquet.write_table(pa.table({"text": texts, "key": texts}), tmp_path / "rows.parquet")
    run("words", tmp_path / "rows.parquet", tmp_path / "out.parquet", keep=("key",))
    found = parquet.read_table(tmp_path / "out.parquet")
    assert found.column("key").to_pylist() == texts
    vectors = np.stack([mean_of(*text.split()) for text in texts])
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    got = found.column("embedding").combine_chunks().flatten().to_numpy().reshape(-1, 3)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-6)


def test_tokens_in_lists_of_several_lengths_are_filled_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = words_artifact(tmp_path / "words")
    store.put(artifact, "words", "onnx-fp32-1")
    quick(monkeypatch, "words:onnx-fp32-1", artifact.digest, pad=False)
    ids = [[2, 4, 5][: 1 + row % 3] for row in range(20)]
    mask = [[1] * len(row) for row in ids]
    parquet.write_table(pa.table({"input_ids": ids, "attention_mask": mask}), tmp_path / "rows.parquet")
    run("words", tmp_path / "rows.parquet", tmp_path / "out.parquet")
    found = parquet.read_table(tmp_path / "out.parquet").column("embedding").combine_chunks().flatten().to_numpy()
    expected = [mean_of(*["good", "film", "a"][: 1 + row % 3]) for row in range(20)]
    np.testing.assert_allclose(found.reshape(-1, 3), expected, rtol=1e-5)


def test_an_artifact_that_is_corrupt_answers_nothing(dense: str, tmp_path: Path) -> None:
    model = next(store.models_dir().glob("dense/*/model.onnx"))
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(HoneError, match="corrupt"):
        run("dense", write(tmp_path, "npy"), tmp_path / "out.parquet")


def test_the_command_says_what_it_did(dense: str, tmp_path: Path) -> None:
    source, out = str(write(tmp_path, "parquet")), str(tmp_path / "out.parquet")
    done = CliRunner().invoke(cli, ["score", "dense", source, out, "--keep", "id"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("dense:onnx-fp32-1: 150 rows, ")
    again = CliRunner().invoke(cli, ["score", "dense", source, out, "--keep", "id"])
    assert again.exit_code == 1
    assert again.output == f"error: {out}: exists already; --overwrite replaces it\n"
    other = CliRunner().invoke(cli, ["score", "dense", source, out, "--columns", "features"])
    assert "is not INPUT=COLUMN" in other.output
    over = CliRunner().invoke(cli, ["score", "dense", source, out, "--columns", "features=a,b,c,d", "--overwrite"])
    assert over.exit_code == 0, over.output
    assert parquet.read_table(out).column_names == ["scores"]


def test_a_folder_whose_files_differ_says_which(dense: str, tmp_path: Path) -> None:
    folder = write(tmp_path, "folder")
    parquet.write_table(table(ROWS).drop(["c"]), folder / "9.parquet")
    with pytest.raises(ScoreError, match=r"9.parquet: there is no column 'c', which .*0.parquet has"):
        run("dense", folder, tmp_path / "out.parquet", keep=("id",))


def test_a_given_plan_of_another_model_is_not_used(dense: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_PLAN", plan(max_batch_rows=4).model_dump_json())
    assert run("dense", write(tmp_path, "npy"), tmp_path / "out.parquet").rows == 150
