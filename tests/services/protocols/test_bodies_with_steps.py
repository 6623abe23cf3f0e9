"""Bodies of bytes, for models with steps: they stand for the model's own input, and an Arrow table names which."""

from __future__ import annotations

import io
from collections.abc import Iterator

import httpx
import numpy as np
import pyarrow as pa
import pytest

from hone import store
from hone.signature import TensorSpec
from tests.models.words import WORDS, mean_of, words_artifact
from tests.servers import use_store
from tests.services.arms.serving import Worker, serving
from tests.services.test_steps import png, stepped

RAW, NPY = {"content-type": "application/octet-stream"}, {"content-type": "application/x-npy"}
ARROW = {"content-type": "application/vnd.apache.arrow.stream"}
PIXELS = np.arange(12, dtype=np.float32).reshape(2, 1, 2, 3)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """`pixels` and `same` take pictures, `same` under the name of its own input; `words` takes text."""
    folder = tmp_path_factory.mktemp("worker")
    use_store(folder)
    for name, own in (("pixels", "pixels"), ("same", "image")):
        step = {"image": {"output": own, "size": [2, 3], "mode": "grayscale", "scale": 1}}
        spec = TensorSpec(name=own, shape=("batch", 1, 2, 3))
        store.put(stepped(folder / name, spec, [step]), name, "onnx-fp32-1")
    store.put(words_artifact(folder / "words"), "words", "onnx-fp32-1")
    with serving(Worker(folder, "pixels", "same", "words")) as running:
        yield running


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def arrow(**columns: object) -> bytes:
    table, sink = pa.table(columns), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def lists(array: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array[0].size)


def test_pixels_stand_for_the_models_own_input(client: httpx.Client) -> None:
    raw = client.post("/models/pixels/predict", content=PIXELS.tobytes(), headers=RAW)
    assert (raw.status_code, raw.content) == (200, PIXELS.tobytes())
    found = client.post("/models/pixels/predict", content=npy(PIXELS), headers=NPY)
    assert found.status_code == 200, found.text
    assert np.load(io.BytesIO(found.content)).tolist() == PIXELS.tolist()
    table = client.post("/models/pixels/predict", content=arrow(pixels=lists(PIXELS)), headers=ARROW)
    assert table.status_code == 200, table.text
    assert pa.ipc.open_stream(table.content).read_all()["copy"].to_pylist() == PIXELS.reshape(2, 6).tolist()


def test_columns_of_a_table_are_callers_inputs_or_the_models(client: httpx.Client) -> None:
    ids = np.array([[WORDS.index(word) for word in ("good", "film")]])
    for body in (arrow(text=["good film"]), arrow(input_ids=lists(ids), attention_mask=lists(np.ones_like(ids)))):
        answer = client.post("/models/words/predict", content=body, headers=ARROW)
        assert answer.status_code == 200, answer.text
        (vector,) = pa.ipc.open_stream(answer.content).read_all()["embedding"].to_pylist()
        np.testing.assert_allclose(vector, mean_of("good", "film"), rtol=1e-5)
    missing = client.post("/models/words/predict", content=arrow(input_ids=lists(ids)), headers=ARROW)
    assert (missing.status_code, missing.json()["error"]) == (
        400,
        "input 'attention_mask' is missing; it is int64[batch, sequence]",
    )


def test_files_are_asked_for_where_callers_give_them_by_the_models_name(client: httpx.Client) -> None:
    for body, headers in ((PIXELS.tobytes(), RAW), (npy(PIXELS), NPY)):
        answer = client.post("/models/same/predict", content=body, headers=headers)
        said = f"input 'image' takes files, not {headers['content-type']}; send image/jpeg or image/png"
        assert (answer.status_code, answer.json()) == (415, {"error": said})
    triton = client.post("/v2/models/same/infer", content=b"abc", headers={"inference-header-content-length": "0"})
    assert triton.status_code == 415
    picture = client.post("/models/same/predict", content=png((3, 2), 7), headers={"content-type": "image/png"})
    assert picture.json()["outputs"] == {"copy": [[[[7.0] * 3] * 2]]}
