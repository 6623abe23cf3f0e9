"""FunctionTransformer of scikit-learn: which functions of NumPy are exported, how precisely, and which are named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.converters.sources.sklearn.functions import FUNCTIONS
from hone.errors import PassError
from tests.later import later
from tests.sources import Work, assert_agree, export, ingest, run, write_recipe

skops = later("skops.io")
compose, linear_model, pipeline, preprocessing = (
    later(f"sklearn.{name}") for name in ("compose", "linear_model", "pipeline", "preprocessing")
)


def saved(folder: Path, model: Any, rows: np.ndarray, **fields: Any) -> Work:
    """Save a fitted model as skops and ingest it through a recipe."""
    folder.mkdir(exist_ok=True)
    skops.dump(model, folder / "model.skops")
    return ingest(write_recipe(folder, {"file": "model.skops"}, {"features": rows}, **fields), folder / "source")


def magnitudes(dtype: str) -> np.ndarray:
    """Return [rows, 1]: zero, numbers from 1e-12 to 50, and where functions have no answer."""
    sizes = np.geomspace(1e-12, 50, 200)
    return np.concatenate([sizes, -sizes, [0.0, -1.0, 1000.0, np.inf, -np.inf, np.nan]]).astype(dtype)[:, None]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", sorted([*FUNCTIONS, "none"]))
def test_functions_of_numpy_are_exported(tmp_path: Path, name: str, dtype: str) -> None:
    rows = magnitudes(dtype)
    model = preprocessing.FunctionTransformer(getattr(np, name, None)).fit(rows)
    signature = {"inputs": {"features": {"dtype": dtype, "shape": ["batch", 1]}}}
    work = saved(tmp_path, model, np.ones((5, 1), dtype), signature=signature)
    wanted = model.transform(rows.astype(np.float64))
    got = run(export(work, tmp_path / "onnx"), {"features": rows})["output"]
    bound = np.finfo(np.float32).tiny  # what is below has fewer digits
    np.testing.assert_allclose(got, wanted.astype(np.float32), rtol=1e-6, atol=bound)


def test_functions_of_whole_columns(tmp_path: Path) -> None:
    rows = np.arange(1, 9)[:, None]
    signature = {"inputs": {"features": {"dtype": "int64", "shape": ["batch", 1]}}}
    for name in ("log1p", "square", "sqrt"):
        model = preprocessing.FunctionTransformer(getattr(np, name)).fit(rows)
        work = saved(tmp_path / name, model, rows, signature=signature)
        assert_agree(work, export(work, tmp_path / f"onnx-{name}"), {"features": rows}, 1e-6)
    work = saved(
        tmp_path / "whole", preprocessing.FunctionTransformer(np.reciprocal).fit(rows), rows, signature=signature
    )
    with pytest.raises(PassError, match=r"numpy\.reciprocal of Int64 columns; use float32"):
        export(work, tmp_path / "onnx")


def test_function_of_some_columns_in_a_pipeline(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    generator = np.random.default_rng(2)
    rows = {
        "age": generator.normal(size=(60, 1)).astype(np.float32),
        "income": generator.lognormal(size=(60, 1)).astype(np.float32),
        "city": generator.choice(["Bonn", "Oslo", "Rome"], size=(60, 1)).astype(object),
    }
    logs = pipeline.make_pipeline(preprocessing.FunctionTransformer(np.log1p), preprocessing.StandardScaler())
    split = compose.ColumnTransformer(
        [
            ("logs", logs, ["income"]),
            ("same", preprocessing.FunctionTransformer(), ["age"]),
            ("text", preprocessing.OneHotEncoder(), ["city"]),
        ]
    )
    model = pipeline.make_pipeline(split, linear_model.LogisticRegression())
    target = (rows["income"] > 1)[:, 0].astype(int)
    skops.dump(
        model.fit(pyarrow.table({name: array[:, 0] for name, array in rows.items()}), target), tmp_path / "m.skops"
    )
    inputs = {name: {"dtype": "float32", "shape": ["batch", 1]} for name in rows}
    inputs["city"]["dtype"] = "string"
    loaded = write_recipe(tmp_path, {"file": "m.skops"}, rows, signature={"inputs": inputs})
    work = ingest(loaded, tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), rows)


@pytest.mark.parametrize(
    ("function", "arguments", "words"),
    [
        (np.cbrt, None, r"numpy\.cbrt, which has no ONNX form; possible without kw_args: numpy's absolute, cos"),
        (np.exp, {"dtype": "float64"}, r"numpy\.exp with kw_args"),
    ],
)
def test_other_functions_are_named(tmp_path: Path, function: Any, arguments: Any, words: str) -> None:
    matrix = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    step = preprocessing.FunctionTransformer(function, kw_args=arguments)
    model = pipeline.make_pipeline(step, linear_model.LogisticRegression())
    work = saved(tmp_path, model.fit(matrix, matrix[:, 0] > 0), matrix)
    with pytest.raises(PassError, match=r"step 'functiontransformer' \(FunctionTransformer\) calls " + words) as caught:
        export(work, tmp_path / "onnx")
    assert "\n" not in str(caught.value)
