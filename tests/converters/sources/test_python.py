"""Python as a source: what is packed, what is refused and why, and that the variant is the code itself."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone import runtimes
from hone.artifact import Artifact
from hone.converters.run.candidates.choose import CODE as AUTO
from hone.converters.run.prepare import prepare
from hone.errors import ArtifactError, HoneError, InputError, ModelError, RecipeError
from hone.runtimes.python import pins
from hone.store.entry import Entry
from hone.store.trust import Policy, refusal
from tests.models import python as model
from tests.models.python import python_artifact, python_recipe

LOADS = """
from helpers.shift import shifted
def load(folder):
    text = (folder / "tables" / "shift.txt").read_text()
    return lambda rows: {"y": shifted(rows["x"], int(text)), "n": rows["x"][:, 0].astype(int)}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("python")
    return python_artifact(folder, python_recipe(folder / "recipe"), memory_mb=800)


def test_the_variant_is_the_code_and_answers_as_it_does(served: Artifact) -> None:
    assert {"code/model.py", "example.json"} == set(served.manifest.files)
    assert [spec.describe() for spec in served.signature.outputs] == ["float32[batch]", "string[batch]"]
    assert served.manifest.runtime_options["memory_mb"] == 800
    with closing(runtimes.load(served, 1)) as runtime:
        answer = runtime.run(model.ROWS)
        assert answer["y"].tolist() == [1, 2, 3, 4] and answer["name"].tolist() == ["row of 0"] * 4
        with pytest.raises(InputError, match="model:predict: x is out of range"):
            runtime.run(model.rows_of(model.REFUSE))
        assert len(runtime.processes()) == 1 and runtime.problem == ""
    assert "slow" in runtimes.remark(served.manifest)


def test_answers_that_are_not_the_signatures_are_refused(tmp_path: Path) -> None:
    code = """
def predict(rows):
    x, what = rows["x"], rows["x"][0, 0]
    if what == 1: return {"y": x[:1]}
    if what == 2: return {"y": x.astype(complex)}
    if what == 3: return {"y": x[:, :1]}
    if what == 4: return {"y": x.astype(str)}
    if what == 5: return {"y": x.astype("float16")}
    return {"y": x}
"""
    with closing(runtimes.load(python_artifact(tmp_path, python_recipe(tmp_path / "recipe", code)))) as runtime:
        for what, line in enumerate(
            (
                r"returned 'y' with 1 row\(s\) for 2 row\(s\)",
                "returned 'y' as complex128, which no tensor has",
                r"returned 'y' of shape \[2, 1\]; the proof had float32\[batch, 2\]",
                "returned 'y' as text; the proof had float32",
            ),
            1,
        ):
            with pytest.raises(ModelError, match=line):
                runtime.run(model.rows_of(what))
        assert runtime.run(model.rows_of(5))["y"].dtype == np.float32  # nothing is lost


def test_modules_and_files_go_along_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "recipe"
    (root / "helpers").mkdir(parents=True)
    (root / "helpers" / "__init__.py").write_text("")
    (root / "helpers" / "shift.py").write_text("from deeper import add\ndef shifted(x, by): return add(x, by)\n")
    (root / "deeper.py").write_text("def add(x, by): return x.sum(axis=1) + by\n")
    (root / "unused.py").write_text("")
    (root / "tables").mkdir()
    (root / "tables" / "shift.txt").write_text("5")
    loaded = python_recipe(root, LOADS, {"load": "model:load", "files": ["tables"], "requirements": ["numpy>=1"]})
    artifact = python_artifact(tmp_path, loaded)
    names = ("deeper.py", "helpers/__init__.py", "helpers/shift.py", "model.py", "tables/shift.txt")
    assert {f"code/{name}" for name in names} | {"example.json"} == set(artifact.manifest.files)
    assert pins(artifact) == [f"numpy=={np.__version__}"]
    with closing(runtimes.load(artifact)) as runtime:
        assert runtime.run(model.ROWS)["y"].tolist() == [6, 7, 8, 9]
    Artifact.open(artifact.path)  # running it left nothing there
    (artifact.path / "code" / "tables" / "shift.txt").write_text("6")
    with pytest.raises(ArtifactError, match=r"shift.txt: corrupt, its sha256 is not the one"):
        Artifact.open(artifact.path)


def predicts(body: str) -> str:
    return f"import numpy as np, os\ncalls = []\ndef predict(rows):\n    x = rows['x']\n    {body}\n"


@pytest.mark.parametrize(
    ("code", "python", "line"),
    [
        ("", "modle:predict", "source.python: no module 'modle' in .*; did you mean 'model'"),
        ("def predict(:", "model:predict", "source.python: model.py:1: invalid syntax"),
        ("", {"predict": "model:predict", "files": ["gone.npz"]}, "source.python.files: .*gone.npz does not exist"),
        (
            "",
            {"predict": "model:predict", "requirements": ["no-such-package>=2"]},
            "needs no-such-package>=2, which is not installed; pip install 'no-such-package>=2'",
        ),
        (predicts("return {'y': x * np.nan}"), "model:predict", "model:predict returned NaN or infinity in 'y'"),
        (
            predicts("return {'y': np.random.rand(len(x))}"),
            "model:predict",
            "gives other answers to the same rows: 'y' differs; set the seeds",
        ),
        (
            predicts("return {'y': x - x.mean(axis=0)}"),
            "model:predict",
            "answers a row alone otherwise than among others",
        ),
        (predicts("return {'y': x.sum()}"), "model:predict", r"returned 'y' with one value for 4 row\(s\)"),
        (predicts("os._exit(5)"), "model:predict", "source.python: model:predict: its process ended with status 5"),
    ],
)
def test_what_can_not_be_served_is_refused_in_a_line(tmp_path: Path, code: str, python: Any, line: str) -> None:
    loaded = python_recipe(tmp_path, code, python)
    with pytest.raises(RecipeError, match=line) as caught:
        prepare(loaded.path, tmp_path / "sources", tmp_path / "evaluation.npz")
    assert "\n" not in str(caught.value)


SHIFTED = """
def load(folder):
    first, second = (int((folder / name).read_text()) for name in ("shift.txt", "tables/more.txt"))
    return lambda rows: {"y": rows["x"].sum(axis=1) + first + second}
"""


def test_what_a_training_wrote_takes_the_place_of_files_of_the_recipe(tmp_path: Path) -> None:
    root, newer = tmp_path / "recipe", tmp_path / "trained"
    (root / "tables").mkdir(parents=True)
    newer.mkdir()
    for file, text in ((root / "shift.txt", "1"), (root / "tables" / "more.txt", "10"), (newer / "shift.txt", "5")):
        file.write_text(text)
    (newer / "model.py").write_text("raise SystemExit")  # no code comes from there
    loaded = python_recipe(root, SHIFTED, {"load": "model:load", "files": ["shift.txt", "tables"]})
    prepared = prepare(loaded.path, tmp_path / "sources", tmp_path / "evaluation.npz", newer)
    with closing(runtimes.load(Artifact.open(prepared.source))) as runtime:
        assert runtime.run(model.ROWS)["y"].tolist() == [16, 17, 18, 19]
    (newer / "shift.txt").unlink()
    with pytest.raises(RecipeError, match=r"trained: is no folder with files of .*source\.python\.files: shift"):
        loaded.with_source(newer)


def test_outputs_that_the_recipe_names_must_be_returned(tmp_path: Path) -> None:
    signature = {"inputs": {"x": {"shape": ["batch", 2]}}, "outputs": ["z"]}
    loaded = python_recipe(tmp_path, signature=signature)
    with pytest.raises(RecipeError, match="model:predict returned no 'z', only 'y', 'name'"):
        prepare(loaded.path, tmp_path / "sources", tmp_path / "evaluation.npz")


@pytest.mark.parametrize(
    ("python", "line"),
    [
        ({"predict": "m:f", "load": "m:g"}, "give either 'predict' or 'load'"),
        ({"predict": "m:f", "files": ["../secret"]}, "'../secret' is not beside the recipe; copy it there"),
        ({"predict": "m:f", "requirements": ["scipy >= "]}, "'scipy >= ' is no requirement"),
        ("model.predict", "write module:function"),
    ],
)
def test_recipes_that_say_nonsense_are_refused(tmp_path: Path, python: Any, line: str) -> None:
    with pytest.raises(RecipeError, match=line):
        python_recipe(tmp_path, python=python)


def test_a_retraining_needs_files_to_write(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"write what source\.python\.files names, which is missing"):
        python_recipe(tmp_path, retrain={"command": "python train.py"})


def test_auto_stands_for_the_code_alone() -> None:
    assert [str(spec) for spec in AUTO.specs] == ["python-process"]


def test_code_of_others_is_not_run_unless_it_is_trusted(served: Artifact, tmp_path: Path) -> None:
    entry = Entry("code", "1", served.path, served)
    assert "it is Python code, model:predict, and runs it, and it was not made on this host" in refusal(entry, Policy())
    assert refusal(entry, Policy(code=True)) == ""


def test_a_module_elsewhere_is_never_what_an_artifact_calls(served: Artifact) -> None:
    options = {**served.manifest.runtime_options, "call": "os:system"}
    with pytest.raises(HoneError, match="module 'os' is also one of Python's"):
        runtimes.load(served.with_manifest(runtime_options=options))


def test_a_requirement_that_a_host_lacks_is_told_before_it_is_loaded(served: Artifact) -> None:
    options = {**served.manifest.runtime_options, "requirements": ["numpy<1"]}
    told = runtimes.runtime_class("python").check_host(served.with_manifest(runtime_options=options))
    assert told == f"model:predict needs numpy<1, and {np.__version__} is installed; pip install 'numpy<1'"
