"""Text, pictures and records over HTTP: asked of a worker's endpoints in this process."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import orjson
from onnx import TensorProto, helper
from PIL import Image

from hone import store
from hone.artifact import Artifact, Manifest, Selection, seal
from hone.services.batching.scheduler import Scheduler
from hone.services.routes.edge import Edge
from hone.services.routes.hub import Hub
from hone.services.routes.metadata import model_config, model_metadata
from hone.services.routes.openapi import Specification, describe
from hone.services.routes.pages import page
from hone.services.settings import Settings
from hone.signature import Signature, TensorSpec
from hone.steps.record import Steps
from tests.models.dense import dense_artifact
from tests.models.words import WORDS, mean_of, words_artifact

LABELS = ("joy", "anger", "boredom")


def asked(artifacts: list[Artifact], ask: Callable[[httpx.AsyncClient, Hub], Awaitable[Any]]) -> Any:
    """Serve artifacts in this process and let a function ask them."""

    async def main() -> Any:
        hub = Hub(Edge(Settings()), Scheduler(2))
        for artifact in artifacts:
            store.put(artifact, artifact.manifest.name, "onnx-fp32-1")
            await hub.load(artifact.manifest.name)

        async def application(scope: Any, receive: Any, send: Any) -> None:
            await hub.routes[scope["path"]](scope, receive, send)

        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            found = await ask(client, hub)
        await hub.close()
        return found

    return asyncio.run(main())


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def test_text_is_answered_in_every_protocol(tmp_path: Path) -> None:
    artifact = words_artifact(tmp_path / "a", post=("normalize",))
    texts = ["good film", "a very very very dull film a a a a a a bad"]
    expected = np.stack([unit(mean_of(*text.split())) for text in texts])

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        for body in ({"text": texts}, {"inputs": {"text": texts}}):
            answer = await client.post("/predict", json=body)
            assert answer.status_code == 200, answer.text
            np.testing.assert_allclose(answer.json()["outputs"]["embedding"], expected, rtol=1e-5)
        alone = await client.post("/predict", json={"text": texts[0]})
        np.testing.assert_allclose(alone.json()["outputs"]["embedding"], expected[:1], rtol=1e-5)
        v1 = await client.post("/v1/models/words:predict", json={"instances": texts})
        np.testing.assert_allclose(v1.json()["predictions"], expected, rtol=1e-5)
        entry = {"name": "text", "datatype": "BYTES", "shape": [2]}
        v2 = await client.post("/v2/models/words/infer", json={"inputs": [{**entry, "data": texts}]})
        assert v2.json()["outputs"][0]["shape"] == [2, 3]
        np.testing.assert_allclose(v2.json()["outputs"][0]["data"], expected.reshape(-1), rtol=1e-5)
        packed = b"".join(len(text).to_bytes(4, "little") + text.encode() for text in texts)
        head = httpx.Response(
            200, json={"inputs": [{**entry, "parameters": {"binary_data_size": len(packed)}}]}
        ).content
        binary = await client.post(
            "/v2/models/words/infer",
            content=head + packed,
            headers={"inference-header-content-length": str(len(head))},
        )
        assert binary.json()["outputs"][0]["data"] == v2.json()["outputs"][0]["data"]

    asked([artifact], ask)


def test_the_models_own_tensors_are_answered_as_ever(tmp_path: Path) -> None:
    ids, mask = [[2, 4]], [[1, 1]]

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        answer = await client.post("/predict", json={"inputs": {"input_ids": ids, "attention_mask": mask}})
        assert answer.json()["outputs"].keys() == {"embedding"}
        np.testing.assert_allclose(answer.json()["outputs"]["embedding"], [mean_of("good", "film")], rtol=1e-5)
        missing = await client.post("/predict", json={"inputs": {"input_ids": ids}})
        assert missing.json() == {"error": "input 'attention_mask' is missing; it is int64[batch, sequence]"}

    asked([words_artifact(tmp_path / "a", post=("normalize",))], ask)


REFUSED: list[tuple[Any, str]] = [
    ({"text": 3}, "input 'text' holds integers, expected string[batch]"),
    ({"text": ["good", None]}, "input 'text' is ragged or mixes types; it is string[batch]"),
    ({"texts": ["good"]}, "unknown input 'texts'; did you mean 'text'?"),
    ({"text": [""]}, "input 'text': row 0 has no tokens"),
    ({"text": ["good", "a" * 70_000]}, "input 'text': row 1 has more than 65536 bytes of text"),
    ({"text": []}, "input 'text' is empty: axis 'batch' has size 0"),
]


def test_text_that_cannot_be_used_gets_one_line(tmp_path: Path) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        for body, message in REFUSED:
            answer = await client.post("/predict", json=body)
            assert (answer.status_code, answer.json()) == (400, {"error": message})
        packed = (2).to_bytes(4, "little") + b"\xff\xfe"
        entry = {"name": "text", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(packed)}}
        head = orjson.dumps({"inputs": [entry]})
        size = {"inference-header-content-length": str(len(head))}
        answer = await client.post("/v2/models/words/infer", content=head + packed, headers=size)
        assert (answer.status_code, answer.json()) == (400, {"error": "input 'text': string 0 is not UTF-8"})

    asked([words_artifact(tmp_path / "a")], ask)


def test_embeddings_are_answered_as_openai_does(tmp_path: Path) -> None:
    tokens = [WORDS.index("good"), WORDS.index("film")]

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        one = (await client.post("/v1/embeddings", json={"model": "words", "input": "good film"})).json()
        assert one["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
        assert (one["object"], one["model"]) == ("list", "words")
        assert [entry["index"] for entry in one["data"]] == [0]
        np.testing.assert_allclose(one["data"][0]["embedding"], unit(mean_of("good", "film")), rtol=1e-5)
        for given in (["good film"], tokens, [tokens]):
            same = await client.post("/models/words/embeddings", json={"input": given, "model": "words:onnx-fp32-1"})
            assert same.json()["data"] == one["data"]
        packed = {"model": "words", "input": ["bad", "good film"], "encoding_format": "base64", "dimensions": 3}
        two = (await client.post("/v1/embeddings", json=packed)).json()
        vector = np.frombuffer(base64.b64decode(two["data"][1]["embedding"]), "<f4")
        np.testing.assert_allclose(vector, one["data"][0]["embedding"], rtol=1e-6)
        assert two["usage"]["prompt_tokens"] == 3
        for wrong, status, message in (
            ({"model": "gpt"}, 404, "'gpt' doesn't answer here but words"),
            ({"input": []}, 400, '"input" must be a text'),
            ({"input": ["a", [1]]}, 400, '"input" must hold texts only'),
            ({"input": [1, 99]}, 400, "tokens must be lists of whole numbers from 0 to 7"),
            ({"encoding_format": "hex"}, 400, "encoding_format is hex"),
            ({"dimensions": 2}, 400, "dimensions is 2; the model's vectors have 3"),
            ({"inputs": "a"}, 400, "unknown field 'inputs'"),
        ):
            answer = await client.post("/v1/embeddings", json={"model": "words", "input": "a", **wrong})
            assert answer.status_code == status
            assert message in answer.json()["error"]

    asked([words_artifact(tmp_path / "a", post=("normalize",))], ask)


def test_embeddings_are_of_the_first_model_that_has_some(tmp_path: Path) -> None:
    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        assert (await client.post("/v1/embeddings", json={"input": "good"})).json()["model"] == "words"
        assert "/models/dense/embeddings" not in hub.routes

    asked([dense_artifact(tmp_path / "d"), words_artifact(tmp_path / "w")], ask)


def test_metadata_and_documentation_show_what_callers_give(tmp_path: Path) -> None:
    artifact = words_artifact(
        tmp_path / "a", output="scores", post=({"top_k": {"k": 2}}, {"labels": {"names": LABELS}})
    )

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        served = hub.get("words")
        told = model_metadata(served, ["1"])
        assert told["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
        assert told["outputs"] == [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 2]},
            {"name": "label", "datatype": "BYTES", "shape": [-1, 2]},
        ]
        assert model_config(served)["input"] == [{"name": "text", "data_type": "TYPE_STRING", "dims": []}]
        paths = describe(Specification({"paths": {}}), {"words": served.loaded.artifact}, "words")["paths"]
        request = paths["/predict"]["post"]["requestBody"]["content"]["application/json"]
        assert request["example"] == {"inputs": {"text": ["An example."]}}
        answer = await client.post("/predict", json=request["example"])
        assert answer.status_code == 200
        assert "image/png" not in paths["/predict"]["post"]["requestBody"]["content"]
        assert "/v1/embeddings" not in paths
        assert "string[batch]" in page([served.loaded], Settings())

    asked([artifact], ask)


def test_answers_are_names(tmp_path: Path) -> None:
    post = ("softmax", {"top_k": {"k": 2}}, {"labels": {"names": LABELS}})
    artifact = words_artifact(tmp_path / "a", output="scores", post=post)
    scores = np.stack([mean_of("good", "film"), mean_of("dull")])
    order = np.argsort(-scores, axis=1)[:, :2]

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        outputs = (await client.post("/predict", json={"text": ["good film", "dull"]})).json()["outputs"]
        assert outputs["label"] == np.array(LABELS)[order].tolist()
        shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(outputs["scores"], np.take_along_axis(shares, order, 1), rtol=1e-5)
        wanted = {"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["dull"]}]}
        one = await client.post("/v2/models/words/infer", json={**wanted, "outputs": [{"name": "label"}]})
        assert one.json()["outputs"] == [
            {"name": "label", "datatype": "BYTES", "shape": [1, 2], "data": np.array(LABELS)[order[1]].tolist()}
        ]

    asked([artifact], ask)


def test_pictures_come_as_bodies_and_in_base64(tmp_path: Path) -> None:
    step = {"image": {"output": "pixels", "size": [2, 3], "mode": "grayscale", "scale": 1, "max_pixels": 100}}
    artifact = stepped(tmp_path / "a", TensorSpec(name="pixels", shape=("batch", 1, 2, 3)), [step])
    shade = png((6, 4), 50)

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        for kind in ("image/png", "image/jpeg"):
            answer = await client.post("/predict", content=shade, headers={"content-type": kind})
            assert answer.json()["outputs"] == {"copy": [[[[50.0] * 3] * 2]]}
        two = [base64.b64encode(png((3, 2), value)).decode() for value in (10, 20)]
        answer = await client.post("/predict", json={"image": two})
        assert np.array(answer.json()["outputs"]["copy"])[:, 0, 0, 0].tolist() == [10, 20]
        for body, message in (
            ({"image": "a"}, "input 'image': row 0 is not base64, as the bytes of a file are in JSON"),
            ({"image": [two[0], "AAAA"]}, "input 'image': row 1 is no JPEG or PNG that can be read"),
            ({"image": two[0][:-40]}, "input 'image': row 0 is no"),
            ({"image": base64.b64encode(png((11, 10), 0)).decode()}, "row 0 has 11 x 10 pixels, 100 are allowed"),
        ):
            answer = await client.post("/predict", json=body)
            assert answer.status_code == 400
            assert message in answer.json()["error"]

    asked([artifact], ask)


def test_records_come_as_named_columns(tmp_path: Path) -> None:
    steps = [
        {"categories": {"input": "color", "values": ["red", "green"], "unknown": "refuse"}},
        {"scale": {"input": "age", "mean": [40], "std": [10]}},
        {"records": {"columns": ["age", "color", "height"], "output": "features", "allow_nan": True}},
    ]
    artifact = stepped(tmp_path / "a", TensorSpec(name="features", shape=("batch", 3), allow_nan=True), steps)

    async def ask(client: httpx.AsyncClient, hub: Hub) -> None:
        row = {"age": 50, "color": "green", "height": 1.5}
        assert (await client.post("/predict", json=row)).json()["outputs"] == {"copy": [[1.0, 1.0, 1.5]]}
        rows = {"instances": [row, {"age": 30, "color": "red", "height": None}]}
        answer = await client.post("/v1/models/stepped:predict", json=rows)
        assert answer.json() == {"predictions": [[1.0, 1.0, 1.5], [-1.0, 0.0, None]]}
        unknown = await client.post("/predict", json={**row, "color": "blue"})
        said = "input 'color': row 0 has 'blue', which is none of the 2 known names"
        assert (unknown.status_code, unknown.json()) == (400, {"error": said})

    asked([artifact], ask)


def png(size: tuple[int, int], shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("L", size, shade).save(stream, "PNG")
    return stream.getvalue()


def stepped(path: Path, spec: TensorSpec, steps: list[Any]) -> Artifact:
    """Return a model that gives back what it gets, behind steps."""
    path.mkdir()
    shape = list(spec.shape)
    graph = helper.make_graph(
        [helper.make_node("Identity", [spec.name], ["copy"])],
        "copy",
        [helper.make_tensor_value_info(spec.name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("copy", TensorProto.FLOAT, shape)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path / "m.onnx")
    return seal(
        path,
        Manifest(
            name="stepped",
            runtime="onnx",
            precision="fp32",
            entry="m.onnx",
            signature=Signature(inputs=(spec,), outputs=(TensorSpec(name="copy", shape=spec.shape),)),
            steps=Steps.model_validate({"preprocess": steps}),
            selection=Selection(run="1", rank=0, eligible=True),
        ),
    )
