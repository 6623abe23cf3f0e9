"""What steps compute, what of them fits together, and what an artifact with them is."""

from __future__ import annotations

import io
import re
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hone import runtimes, store
from hone.artifact import Artifact, Manifest, parse_manifest
from hone.errors import ArtifactError, InputError
from hone.signature import Signature, TensorSpec
from hone.steps.base import StepError, TooMuchError
from hone.steps.packing import packed_columns, unpacked_columns
from hone.steps.pipeline import ReadySteps
from hone.steps.ready import missing_here, offered_by
from hone.steps.record import Steps
from hone.store.archive import export, import_archive
from hone.store.trust import Admission, Policy, TrustError
from tests.models.dense import dense_artifact
from tests.models.words import INPUTS, TOKENIZE, words_artifact, write_tokenizer

SCORES = TensorSpec(name="scores", shape=("batch", 3))


def ready(
    folder: Path, pre: tuple[Any, ...] = (), post: tuple[Any, ...] = (), *, inputs: tuple[TensorSpec, ...] = ()
) -> ReadySteps:
    return ReadySteps(
        Steps.model_validate({"preprocess": pre, "postprocess": post}),
        Signature(inputs=inputs, outputs=(SCORES,)),
        folder,
    )


def after(folder: Path, *post: Any) -> dict[str, np.ndarray]:
    return ready(folder, post=post).after({"scores": np.array([[1, 3, 2], [-4, 0, -9]], np.float32)})


def test_steps_behind_a_model_compute_what_they_say(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("a\nb\nc\n")
    shares = after(tmp_path, "softmax")["scores"]
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(shares[0] / shares[0, 0], np.exp([0, 2, 1]), rtol=1e-5)
    np.testing.assert_allclose(after(tmp_path, "sigmoid")["scores"][1], 1 / (1 + np.exp([4, 0, 9])), rtol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(after(tmp_path, "normalize")["scores"], axis=1), 1, rtol=1e-6)
    over = after(tmp_path, {"threshold": {"at": 1.5, "output": "over"}})
    assert (list(over), over["over"].tolist()) == (["over"], [[0, 1, 1], [0, 0, 0]])
    assert after(tmp_path, {"labels": {"file": "names.txt"}})["label"].tolist() == ["b", "b"]
    best = after(tmp_path, {"top_k": {"k": 2}}, {"labels": {"names": ["a", "b", "c"]}})
    assert best["label"].tolist() == [["b", "c"], ["b", "a"]]
    assert best["scores"].tolist() == [[3, 2], [0, -4]]


@pytest.mark.parametrize(
    ("post", "message"),
    [
        ({"top_k": {"k": 4}}, "postprocess[0].top_k: 'scores' has 3 classes, k is 4"),
        (
            {"softmax": {"input": "score"}},
            "postprocess[0].softmax: there is no 'score' to work on; did you mean",
        ),
        (
            {"labels": {"file": "none.txt"}},
            "labels: none.txt: cannot be read: No such file or directory",
        ),
        (
            {"labels": {"file": "package_that_is_not:a.txt"}},
            "the package package_that_is_not, which is not installed",
        ),
    ],
)
def test_steps_that_do_not_fit_are_named(tmp_path: Path, post: Any, message: str) -> None:
    with pytest.raises(StepError, match=re.escape(message)):
        after(tmp_path, post)


def test_text_is_filled_up_to_the_longest_or_to_a_length(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    texts = np.array(["good film", "a very dull film"], dtype=object)
    tensors, counts = ready(tmp_path, (TOKENIZE,), inputs=INPUTS).before({"text": texts})
    assert tensors["input_ids"].tolist() == [[2, 4, 0, 0], [5, 6, 7, 4]]
    assert tensors["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert counts is not None
    assert counts.tolist() == [2, 4]
    fixed = tuple(spec.model_copy(update={"shape": ("batch", 3), "dtype": "int32"}) for spec in INPUTS)
    cut = {"tokenize": {"file": "tokenizer.json", "max_length": 3, "padding": "fixed"}}
    tensors, _ = ready(tmp_path, (cut,), inputs=fixed).before({"text": texts})
    assert tensors["input_ids"].tolist() == [[2, 4, 0], [5, 6, 7]]
    assert tensors["input_ids"].dtype == np.int32
    strict = {"tokenize": {"file": "tokenizer.json", "max_length": 3, "truncation": False}}
    with pytest.raises(InputError, match="input 'text': row 1 has 4 tokens, the model takes 3"):
        ready(tmp_path, (strict,), inputs=INPUTS).before({"text": texts})


def test_what_would_take_too_much_memory_is_not_made(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    texts = np.array(["a"] * 9_999 + ["a " * 64], dtype=object)
    steps = ready(tmp_path, (TOKENIZE,), inputs=INPUTS)
    with pytest.raises(TooMuchError, match=r"the steps would make 15 MB of these rows, 1 MB are allowed"):
        steps.before({"text": texts}, 1_000_000)
    assert steps.before({"text": texts[:-1]}, 1_000_000)[0]["input_ids"].shape == (9_999, 1)


def test_pictures_take_no_more_memory_than_their_tensors(tmp_path: Path) -> None:
    step = {"image": {"output": "x", "size": [100, 100], "mean": [0.5], "std": [0.2], "filter": "nearest"}}
    steps = ready(tmp_path, (step,), inputs=(TensorSpec(name="x", shape=("batch", 3, 100, 100)),))
    assert steps.row_bytes == 120_000
    many = np.concatenate([picture(2, 2)] * 100)
    steps.before({"image": many})
    tracemalloc.start()
    made = steps.before({"image": many})[0]["x"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert made.nbytes == 12_000_000 and peak < 1.1 * made.nbytes
    np.testing.assert_allclose(np.unique(made), [-2.5, 2.5], rtol=1e-5)


def picture(width: int, height: int, kind: str = "PNG") -> np.ndarray:
    """Return a file whose left half is black and whose right half is white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, width // 2 :] = 255
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    row = np.empty(1, dtype=object)
    row[0] = stream.getvalue()
    return row


@pytest.mark.parametrize(("resize", "edges"), [("stretch", [0, 1]), ("crop", [0, 1]), ("pad", [0, 1])])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_pictures_become_tensors_of_one_size(tmp_path: Path, resize: str, edges: list[int], layout: str) -> None:
    step = {"image": {"output": "x", "size": [4, 4], "layout": layout, "resize": resize, "filter": "nearest"}}
    shape = ("batch", 3, 4, 4) if layout == "NCHW" else ("batch", 4, 4, 3)
    steps = ready(tmp_path, (step,), inputs=(TensorSpec(name="x", shape=shape),))
    pixels = steps.before({"image": picture(16, 8)})[0]["x"]
    assert pixels.shape[1:] == shape[1:]
    plane = pixels[0, 0] if layout == "NCHW" else pixels[0, ..., 0]
    middle = plane[2]
    assert [middle[0], middle[-1]] == edges
    assert (plane[0] == 0).all() == (resize == "pad")


def test_pictures_are_scaled_as_their_training_code_does(tmp_path: Path) -> None:
    means, deviations = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    step = {"image": {"output": "x", "size": [2, 2], "mean": means, "std": deviations}}
    steps = ready(tmp_path, (step,), inputs=(TensorSpec(name="x", shape=("batch", 3, 2, 2)),))
    pixels = steps.before({"image": picture(2, 2)})[0]["x"]
    np.testing.assert_allclose(pixels[0, :, 0, 1], (1 - np.array(means)) / deviations, rtol=1e-5)
    np.testing.assert_allclose(pixels[0, :, 0, 0], -np.array(means) / deviations, rtol=1e-5)
    whole = {"image": {"output": "x", "size": [2, 2], "layout": "NHWC"}}
    bytes_ = ready(tmp_path, (whole,), inputs=(TensorSpec(name="x", dtype="uint8", shape=("batch", 2, 2, 3)),))
    assert bytes_.before({"image": picture(2, 2)})[0]["x"][0, 0].tolist() == [[0] * 3, [255] * 3]


def test_a_bomb_is_refused_by_its_head(tmp_path: Path) -> None:
    step = {"image": {"output": "x", "size": [2, 2]}}
    steps = ready(tmp_path, (step,), inputs=(TensorSpec(name="x", shape=("batch", 3, 2, 2)),))
    bomb = picture(2, 2)
    for side in (6_000, 60_000):
        content = bytearray(bomb[0])
        content[16:24] = side.to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        bomb[0] = bytes(content)
        with pytest.raises(InputError, match=r"input 'image': row 0 has .* pixels, 25000000 are allowed"):
            steps.before({"image": bomb})


def test_functions_of_ones_own_are_one_file(tmp_path: Path) -> None:
    declared = {"x": {"shape": ["batch", 2]}}
    step = {"function": {"call": "own:double", "inputs": declared, "outputs": declared}}
    inputs = (TensorSpec(name="x", shape=("batch", 2)),)
    (tmp_path / "own.py").write_text("def double(columns):\n    return {'x': columns['x'] * 2}\n")
    rows = {"x": np.ones((1, 2), np.float32)}
    assert ready(tmp_path, (step,), inputs=inputs).before(rows)[0]["x"].tolist() == [[2, 2]]
    (tmp_path / "own.py").write_text("def double(columns):\n    raise ValueError('no rows of ones')\n")
    with pytest.raises(InputError, match="own:double: no rows of ones"):
        ready(tmp_path, (step,), inputs=inputs).before(rows)
    (tmp_path / "beside.py").write_text("")
    (tmp_path / "own.py").write_text("import beside\n")
    with pytest.raises(StepError, match=r"own.py imports 'beside' beside it; a step is one file"):
        ready(tmp_path, (step,), inputs=inputs)


def test_a_function_may_stand_beside_a_dataclass(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "@dataclass\n"
        "class Factor:\n    by: int = 3\n"
        "def triple(columns):\n    return {'x': columns['x'] * Factor().by}\n"
    )
    declared = {"x": {"shape": ["batch", 2]}}
    step = {"function": {"call": "own:triple", "inputs": declared, "outputs": declared}}
    steps = ready(tmp_path, (step,), inputs=(TensorSpec(name="x", shape=("batch", 2)),))
    assert steps.before({"x": np.ones((1, 2), np.float32)})[0]["x"].tolist() == [[3, 3]]
    before = {*sys.modules}
    (tmp_path / "own.py").write_text("1 / 0\n")
    with pytest.raises(StepError, match=r"own.py fails to import: ZeroDivisionError"):
        ready(tmp_path, (step,), inputs=(TensorSpec(name="x", shape=("batch", 2)),))
    assert {*sys.modules} == before


def test_files_of_rows_survive_a_file_without_pickles() -> None:
    files = np.empty(3, dtype=object)
    files[:] = [b"\0\0", b"", b"abc\0"]
    found = unpacked_columns(packed_columns({"a": files, "b": np.array(["x", "yy", "z"])}, "raw."), "raw.")
    assert found["a"].tolist() == files.tolist()
    assert found["b"].tolist() == ["x", "yy", "z"]


def test_artifacts_without_steps_are_what_they_were(tmp_path: Path) -> None:
    artifact = dense_artifact(tmp_path / "a")
    assert offered_by(artifact) is artifact.signature
    assert missing_here(artifact) == ""
    older = artifact.manifest.model_dump(mode="json", exclude={"steps"})
    assert Manifest.model_validate(older).digest == artifact.digest


def test_steps_are_part_of_what_an_artifact_is(tmp_path: Path) -> None:
    artifact = words_artifact(tmp_path / "a")
    other = artifact.with_manifest(steps=Steps.model_validate({"preprocess": [TOKENIZE]}))
    assert artifact.manifest.steps is not None
    assert artifact.manifest.steps.files == ["steps/pre-0-tokenizer.json"]
    assert other.digest != artifact.digest
    text = other.manifest.model_dump_json().encode()
    with pytest.raises(ArtifactError, match=r"steps: 'tokenizer.json' is not one of its other files"):
        parse_manifest(text, tmp_path / "artifact.json")


def test_functions_in_artifacts_need_trust(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def same(columns):\n    return columns\n")
    declared = {"scores": {"shape": ["batch", 3]}}
    own = {"function": {"call": "own:same", "inputs": declared, "outputs": declared}}
    artifact = words_artifact(tmp_path / "a", output="scores", post=(own,))
    assert runtimes.code_in(artifact) == "runs own:same of its own around the model"
    assert runtimes.code_in(words_artifact(tmp_path / "b" / "b")) == ""
    archive = _archived(artifact, tmp_path)
    with pytest.raises(TrustError, match="it runs own:same of its own around the model, and it was not made on this"):
        import_archive(archive, admit=Admission(Policy(), archive))
    assert import_archive(archive, admit=Admission(Policy(code=True), archive)).tag == "words:onnx-fp32-1"


def _archived(artifact: Artifact, folder: Path) -> Path:
    """Return an archive of an artifact that this host has forgotten."""
    entry = store.put(artifact, "words", "onnx-fp32-1")
    archive = export(entry, folder / "words.tar.gz")
    store.remove(entry)
    return archive
