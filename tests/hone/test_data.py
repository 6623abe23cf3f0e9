from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hone.data import Dataset, load_dataset, read_dataset, save_dataset
from hone.errors import RecipeError
from hone.recipe import DataSpec, load_recipe
from hone.signature import Signature, TensorSpec
from tests.models.sums import write_project
from tests.servers import ROOT

SIGNATURE = Signature(inputs=(TensorSpec(name="features", dtype="float32", shape=("batch", 4)),))


def load(tmp_path: Path, spec: dict[str, object] | str, code: str | None = None) -> Dataset:
    loaded = load_recipe(write_project(tmp_path, **({"code": code} if code else {})))
    return load_dataset(loaded, "evaluation", DataSpec.model_validate(spec), SIGNATURE)


def test_columns_that_tell_rows_apart_are_kept_beside_the_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", features=np.zeros((5, 4), np.float32), label=np.arange(5), site=list("aabbb"))
    dataset = load(tmp_path, {"from": "rows.npz", "slices": ["site"]})
    assert list(dataset.inputs) == ["features"] and list(dataset.slices["site"]) == list("aabbb")
    save_dataset(dataset.of(np.array([1, 4])), tmp_path / "saved.npz")
    saved = read_dataset(tmp_path / "saved.npz")
    assert list(saved.slices["site"]) == ["a", "b"] and list(saved.inputs) == ["features"]
    with pytest.raises(RecipeError, match=r"evaluation.slices: no column 'sit'; did you mean 'site'"):
        load(tmp_path, {"from": "rows.npz", "slices": ["sit"]})
    np.savez(tmp_path / "short.npz", features=np.zeros((5, 4), np.float32), label=np.arange(5), site=list("aab"))
    with pytest.raises(RecipeError, match="rows differ: features 5, site 3, labels 5"):
        load(tmp_path, {"from": "short.npz", "slices": ["site"]})


def test_a_csv_is_utf8_whatever_the_locale_with_or_without_a_mark(tmp_path: Path) -> None:
    text = "größe,label\n1.5,ja\n2,nein\n"
    (tmp_path / "plain.csv").write_text(text, encoding="utf-8")
    (tmp_path / "excel.csv").write_text(text, encoding="utf-8-sig")
    code = (
        "import sys; from pathlib import Path; from hone.recipe.columns import read_columns\n"
        "print(*(ascii(list(read_columns(Path(file), ''))) for file in sys.argv[1:]))"
    )
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "plain.csv"), str(tmp_path / "excel.csv")]
    done = subprocess.run(command, env={**os.environ, **plain}, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == r"['gr\xf6\xdfe', 'label'] ['gr\xf6\xdfe', 'label']" + "\n", done.stderr


def test_npz_parquet_and_function_give_the_same_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    features, labels = np.arange(20, dtype=np.float32).reshape(5, 4), np.arange(5)
    np.savez(tmp_path / "rows.npz", features=features, label=labels)
    columns = {name: features[:, index] for index, name in enumerate("abcd")}
    parquet.write_table(pa.table({**columns, "label": labels}), tmp_path / "rows.parquet")
    code = (
        "import numpy as np\n"
        "def rows():\n    return {'features': np.arange(20, dtype=np.float64).reshape(5, 4)}, np.arange(5)\n"
    )
    sets = [
        load(tmp_path, "rows.npz", code),
        load(tmp_path, {"from": "rows.parquet", "columns": {"features": list("abcd")}}, code),
        load(tmp_path, "network:rows", code),
    ]
    for dataset in sets:
        np.testing.assert_array_equal(dataset.inputs["features"], features)
        np.testing.assert_array_equal(dataset.labels, labels)
    assert len({dataset.digest for dataset in sets}) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return {'feature': np.zeros((2, 4))}", "no array for input 'features'; did you mean 'feature'"),
        ("return {'features': np.zeros((2, 5), 'float32')}", "axis 1 is 5, not 4"),
        ("return {'features': np.full((2, 4), np.nan)}", "NaN or infinity in 2 rows, first in row 0"),
        ("return {'features': np.array([['a'] * 4])}", "dtype <U1, expected float32"),
        ("return {'features': np.zeros((0, 4))}", "empty"),
        ("return {'features': np.zeros((2, 4)), 'label': np.zeros(3)}", "rows differ: features 2, labels 3"),
        ("return {'features': np.full((2, 4), 1e300)}", "has float64 values that don't fit float32"),
        ("return {'features': np.float32(3)}", "input 'features' is one value; give an array with the rows on axis 0"),
        ("return {'features': np.zeros((2, 4))}, 3", "labels is one value; give an array"),
        ("return {'features': [[1, 2, 3, 4], [5]]}", "'features' is no array: .*inhomogeneous"),
        ("return 3", "returned int; return a dict"),
        ("return 1 / 0", r"network:rows failed \(network.py:3\): ZeroDivisionError"),
    ],
)
def test_wrong_data_is_explained(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load(tmp_path, "network:rows", f"import numpy as np\ndef rows():\n    {body}\n")


def test_labels_that_are_none_are_no_labels(tmp_path: Path) -> None:
    code = "import numpy as np\ndef rows():\n    return {'features': np.zeros((2, 4))}, None\n"
    assert load(tmp_path, "network:rows", code).labels is None


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("netwrk:rows", "no module 'netwrk' in .*did you mean 'network'"),
        ("network:row", "module 'network' has no 'row'; did you mean 'rows'"),
        ("network:X", "is a int, not a function"),
        ("missing.npz", "does not exist"),
    ],
)
def test_wrong_reference_names_the_nearest(tmp_path: Path, reference: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        load(tmp_path, reference, "X = 1\ndef rows():\n    return {}\n")


def test_pickled_npz_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", features=np.array([{}], dtype=object))
    with pytest.raises(RecipeError, match=r"can't be read as \.npz"):
        load(tmp_path, "rows.npz")


def test_module_that_needs_a_missing_package_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="needs 'no_such_package', which is not installed"):
        load(tmp_path, "network:rows", "import no_such_package\n")


def test_saved_rows_come_back_with_their_strings(tmp_path: Path) -> None:
    dataset = Dataset({"name": np.array(["a", "bb"], dtype=object), "x": np.ones((2, 1))}, np.array([0, 1]))
    save_dataset(dataset, tmp_path / "rows.npz")
    again = read_dataset(tmp_path / "rows.npz")
    assert again.inputs["name"].dtype == object
    assert again.digest == dataset.digest
