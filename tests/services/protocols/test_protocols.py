"""Every protocol on one server, called by third-party clients and by hand, valid and broken."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
from collections.abc import Iterator

import httpx
import numpy as np
import pyarrow as pa
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import zstandard
from tritonclient.utils import InferenceServerException

from hone.services.launch import free_port
from tests.models.dense import dense_answer, dense_artifact
from tests.servers import DIGITS, Server, put, server

BINARY = {"content-type": "application/octet-stream"}


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, grpc_port: int) -> Iterator[Server]:
    home, folder = tmp_path_factory.mktemp("shop"), tmp_path_factory.mktemp("artifacts")
    put(home, folder / "digits", "digits", "onnx-fp32-1")
    put(home, folder / "other", "other", "onnx-fp32-1", seed=1)
    with server(DIGITS, home, HONE_GRPC_PORT=str(grpc_port), HONE_MODELS="other", HONE_MAX_BODY_MB="1") as running:
        yield running


@pytest.fixture(scope="module")
def client(served: Server) -> httpx.Client:
    return served.client


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_triton_http_client(served: Server, binary_in: bool, binary_out: bool) -> None:
    with triton_http.InferenceServerClient(f"127.0.0.1:{served.port}") as triton:
        assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready("digits")
        assert not triton.is_model_ready("nothing")
        assert triton.get_server_metadata()["name"] == "hone"
        metadata = triton.get_model_metadata("digits")
        assert metadata["inputs"] == [{"name": "features", "datatype": "FP32", "shape": [-1, 4]}]
        assert triton.get_model_config("digits")["max_batch_size"] == 64
        for name, seed in (("digits", 0), ("other", 1)):
            features = rows(7, seed)
            tensor = triton_http.InferInput("features", features.shape, "FP32")
            tensor.set_data_from_numpy(features, binary_data=binary_in)
            wanted = [triton_http.InferRequestedOutput("scores", binary_data=binary_out)]
            result = triton.infer(name, [tensor], outputs=wanted, request_id="mine")
            np.testing.assert_allclose(result.as_numpy("scores"), dense_answer(features, seed), rtol=1e-4, atol=1e-5)
            assert result.get_response()["id"] == "mine"
            assert result.get_response()["model_name"] == name


def test_triton_http_client_compresses_and_names_a_version(served: Server) -> None:
    with triton_http.InferenceServerClient(f"127.0.0.1:{served.port}") as triton:
        features = rows(3)
        tensor = triton_http.InferInput("features", features.shape, "FP32")
        tensor.set_data_from_numpy(features)
        result = triton.infer("digits", [tensor], model_version="onnx-fp32-1", request_compression_algorithm="gzip")
        np.testing.assert_allclose(result.as_numpy("scores"), dense_answer(features), rtol=1e-4, atol=1e-5)
        with pytest.raises(InferenceServerException, match="no version '2' of 'digits'"):
            triton.infer("digits", [tensor], model_version="2")


def test_triton_grpc_client(served: Server, grpc_port: int) -> None:
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}") as triton:
        assert triton.is_server_live() and triton.is_server_ready() and triton.is_model_ready("digits")
        assert not triton.is_model_ready("nothing")
        assert triton.get_model_metadata("digits").inputs[0].shape == [-1, 4]
        config = triton.get_model_config("digits").config
        assert (config.name, config.backend, list(config.input[0].dims)) == ("digits", "onnx", [4])
        assert config.max_batch_size >= 1
        assert {model.name for model in triton.get_model_repository_index().models} == {"digits", "other"}
        features = rows(100)
        tensor = triton_grpc.InferInput("features", features.shape, "FP32")
        tensor.set_data_from_numpy(features)
        result = triton.infer("digits", [tensor], client_timeout=20)
        np.testing.assert_allclose(result.as_numpy("scores"), dense_answer(features), rtol=1e-4, atol=1e-5)
        tensor.set_shape([3, 3])
        tensor.set_data_from_numpy(rows(3)[:, :3].copy())
        with pytest.raises(InferenceServerException, match="axis 1 is 3, not 4") as caught:
            triton.infer("digits", [tensor])
        assert "INVALID_ARGUMENT" in caught.value.status()
        with pytest.raises(InferenceServerException, match="no model 'nothing'") as caught:
            triton.infer("nothing", [tensor])
        assert "NOT_FOUND" in caught.value.status()


def test_grpc_loads_no_model_from_outside_the_store(
    served: Server, grpc_port: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("outside")
    dense_artifact(folder / "evil" / "v1", name="evil")
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}") as triton:
        before = triton.get_model_repository_index(as_json=True)
        for name in (str(folder / "evil"), os.path.relpath(folder / "evil", served.log.parent / "models"), ""):
            with pytest.raises(InferenceServerException, match="no model"):
                triton.load_model(name)
        assert triton.get_model_repository_index(as_json=True) == before


def test_grpc_contents_without_raw_bytes(grpc_port: int) -> None:
    import grpc
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        request = service_pb2.ModelInferRequest(model_name="digits")
        tensor = request.inputs.add(name="features", datatype="FP32", shape=[1, 4])
        tensor.contents.fp32_contents.extend([1, 2, 3, 4])
        answer = stub.ModelInfer(request, timeout=20)
        scores = np.frombuffer(answer.raw_output_contents[0], np.float32)
        np.testing.assert_allclose(scores, dense_answer(np.array([1, 2, 3, 4], np.float32)), rtol=1e-4)
        tensor.contents.fp32_contents.append(5)
        with pytest.raises(grpc.RpcError, match="has 5 values"):
            stub.ModelInfer(request, timeout=20)
        tensor.contents.fp32_contents.pop()
        request.parameters["timeout"].int64_param = 0
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request, timeout=20)
        assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


def test_v1_rows_and_columns(client: httpx.Client) -> None:
    features = rows(3)
    answer = client.post("/v1/models/digits:predict", json={"instances": features.tolist()})
    np.testing.assert_allclose(answer.json()["predictions"], dense_answer(features), rtol=1e-4, atol=1e-5)
    named = [{"features": row} for row in features.tolist()]
    assert client.post("/v1/models/digits:predict", json={"instances": named}).json() == answer.json()
    columns = client.post("/v1/models/digits:predict", json={"inputs": {"features": features.tolist()}})
    np.testing.assert_allclose(columns.json()["outputs"]["scores"], dense_answer(features), rtol=1e-4, atol=1e-5)
    assert client.get("/v1/models").json() == {"models": ["digits", "other"]}
    assert client.get("/v1/models/digits").json() == {"name": "digits", "ready": True}


def test_raw_rows_npy_and_arrow(client: httpx.Client) -> None:
    features = rows(5)
    expected = dense_answer(features)
    raw = client.post("/predict", content=features.tobytes(), headers=BINARY)
    np.testing.assert_allclose(np.frombuffer(raw.content, np.float32).reshape(-1, 3), expected, rtol=1e-4, atol=1e-5)
    for array in (features, np.asfortranarray(features), features.astype(">f4")):
        stream = io.BytesIO()
        np.save(stream, array)
        npy = client.post("/predict", content=stream.getvalue(), headers={"content-type": "application/x-npy"})
        assert npy.status_code == 200, npy.text
        np.testing.assert_allclose(np.load(io.BytesIO(npy.content)), expected, rtol=1e-4, atol=1e-5)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(features.reshape(-1)), 4)
    columns = {name: pa.array(features[:, index]) for index, name in enumerate("abcd")}
    for table in (pa.table({"features": lists}), pa.table(columns)):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        media = {"content-type": "application/vnd.apache.arrow.stream"}
        answer = client.post("/predict", content=sink.getvalue().to_pybytes(), headers=media)
        assert answer.status_code == 200, answer.text
        scores = pa.ipc.open_stream(answer.content).read_all()["scores"].to_pylist()
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", ["/predict", "/models/digits/predict", "/models/digits/versions/onnx-fp32-1/predict"])
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_compressed_bodies(client: httpx.Client, path: str, encoding: str) -> None:
    features = rows(2)
    body = json.dumps({"inputs": {"features": features.tolist()}}).encode()
    packed = gzip.compress(body) if encoding == "gzip" else zstandard.compress(body)
    headers = {"content-encoding": encoding, "content-type": "application/json"}
    answer = client.post(path, content=packed, headers=headers)
    np.testing.assert_allclose(answer.json()["outputs"]["scores"], dense_answer(features), rtol=1e-4, atol=1e-5)


def test_tritons_raw_binary_request(client: httpx.Client) -> None:
    features = rows(2)
    headers = {**BINARY, "inference-header-content-length": "0"}
    answer = client.post("/v2/models/digits/infer", content=features.tobytes(), headers=headers)
    np.testing.assert_allclose(
        np.frombuffer(answer.content, np.float32).reshape(-1, 3), dense_answer(features), rtol=1e-4, atol=1e-5
    )


def v2(entry: dict[str, object], **fields: object) -> bytes:
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4], **entry}
    return json.dumps({"inputs": [tensor], **fields}).encode()


def binary(header: dict[str, object], tail: bytes, **entry: object) -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}, **entry}
    text = json.dumps({"inputs": [tensor], **header}).encode()
    return text + tail, {**BINARY, "inference-header-content-length": str(len(text))}


ONE = np.arange(4, dtype=np.float32).tobytes()


@pytest.mark.parametrize(
    ("content", "headers", "status", "words"),
    [
        (v2({"datatype": "FP64"}), {}, 400, "datatype FP64, expected FP32"),
        (v2({"shape": [2, 4]}), {}, 400, "has 4 values"),
        (v2({"shape": [-1, 4]}), {}, 400, "the shape [-1, 4] is not possible"),
        (v2({"shape": [1, 1 << 50]}), {}, 400, "is not possible"),
        (v2({"name": "feature"}), {}, 400, "did you mean 'features'"),
        (v2({}, outputs=[{"name": "score"}]), {}, 400, "did you mean 'scores'"),
        (v2({}, parameters={"timeout": "soon"}), {}, 400, "microseconds"),
        (v2({}, parameters={"timeout": 0}), {}, 503, "can't answer within"),
        (v2({}), {"x-timeout-ms": "0"}, 503, "can't answer within"),
        (v2({}), {"x-timeout-ms": "-5"}, 503, "can't answer within"),
        (v2({}), {"x-timeout-ms": "soon"}, 400, "x-timeout-ms"),
        (v2({"data": [1, 2, 3, None]}), {}, 400, "null in row"),
        (b"[]", {}, 400, "inputs"),
        (b"{", {}, 400, "not JSON"),
        (v2({}), {"inference-header-content-length": "999999"}, 400, "Inference-Header-Content-Length"),
        (v2({}), {"inference-header-content-length": "-1"}, 400, "Inference-Header-Content-Length"),
        (*binary({}, ONE[:-1]), 400, "only 15 bytes are left"),
        (*binary({}, ONE + b"x"), 400, "1 bytes behind"),
        (*binary({}, ONE, parameters={"binary_data_size": 12}), 400, "needs 16 bytes"),
        (*binary({}, ONE, parameters={"binary_data_size": -1}), 400, "binary_data_size"),
        (*binary({}, np.full(4, np.nan, np.float32).tobytes()), 400, "NaN or infinity"),
        (*binary({}, np.array([1, 2, np.inf, 0], np.float32).tobytes()), 400, "NaN or infinity"),
    ],
)
def test_broken_v2_requests(
    client: httpx.Client, content: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    answer = client.post("/v2/models/digits/infer", content=content, headers=headers)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert words in answer.json()["error"]
    if status == 503:
        assert int(answer.headers["retry-after"]) >= 1


def npy(descr: str, shape: str, content: bytes = ONE) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


@pytest.mark.parametrize(
    ("path", "content", "media", "status", "words"),
    [
        ("/predict", ONE[:-1], "application/octet-stream", 400, "multiple of 16 bytes"),
        ("/predict", b"", "application/octet-stream", 400, "multiple of 16 bytes"),
        ("/predict", np.full(4, np.inf, np.float32).tobytes(), "application/octet-stream", 400, "NaN or infinity"),
        ("/predict", b"\x93NUMPX", "application/x-npy", 400, "not an npy file"),
        ("/predict", npy("'|O'", "(1, 4)"), "application/x-npy", 400, "objects are not read"),
        ("/predict", npy("'<f4'", "(2, 4)"), "application/x-npy", 400, "promises 32 bytes"),
        ("/predict", npy("'<f8'", "(1, 2)"), "application/x-npy", 400, "dtype float64"),
        ("/predict", npy("'<f4'", "(-1, 4)"), "application/x-npy", 400, "header can't be read"),
        ("/predict", npy("__import__('os')", "(1, 4)"), "application/x-npy", 400, "header can't be read"),
        ("/predict", b"ARROW1", "application/vnd.apache.arrow.stream", 400, "not an Arrow IPC stream"),
        ("/v1/models/digits:predict", b'{"instances": []}', "application/json", 400, "at least one row"),
        ("/v1/models/digits:predict", b'{"instances": [[1]], "inputs": {}}', "application/json", 400, "either"),
        ("/v1/models/digits:predict", b'{"instances": [{"a": 1}, {"b": 1}]}', "application/json", 400, "row 1"),
        ("/v2/models/nothing/infer", b"{}", "application/json", 404, "no model 'nothing'"),
        ("/models/nothing/predict", b"{}", "application/json", 404, "no model answers"),
        ("/v3", b"{}", "application/json", 404, ""),
    ],
)
def test_broken_bodies(client: httpx.Client, path: str, content: bytes, media: str, status: int, words: str) -> None:
    answer = client.post(path, content=content, headers={"content-type": media})
    assert answer.status_code == status, answer.text
    assert words in answer.text


def test_zip_bombs_end_at_the_limit(client: httpx.Client) -> None:
    zeros = bytes(50_000_000)
    for encoding, bomb in (("gzip", gzip.compress(zeros)), ("zstd", zstandard.compress(zeros))):
        assert len(bomb) < 100_000
        answer = client.post("/predict", content=bomb, headers={"content-encoding": encoding})
        assert (answer.status_code, "decompressed body is over the limit" in answer.text) == (413, True)
    cut = gzip.compress(b'{"inputs": {}}')[:-6]
    answer = client.post("/predict", content=cut, headers={"content-encoding": "gzip"})
    assert (answer.status_code, answer.json()) == (400, {"error": "the gzip body ends early"})


def test_request_id_and_headers(client: httpx.Client) -> None:
    answer = client.post("/predict", content=rows(1).tobytes(), headers={**BINARY, "x-request-id": "abc"})
    assert answer.headers["x-request-id"] == "abc"
    assert answer.headers["x-content-type-options"] == "nosniff"
    strange = client.post("/predict", content=rows(1).tobytes(), headers={**BINARY, "x-request-id": "a" * 500})
    assert len(strange.headers["x-request-id"]) < 40


def test_openapi_describes_every_protocol_with_examples_that_work(client: httpx.Client) -> None:
    paths = client.get("/docs.json").json()["paths"]
    for path in ("/models/digits/predict", "/v1/models/other:predict", "/v2/models/digits/infer"):
        example = paths[path]["post"]["requestBody"]["content"]["application/json"]["example"]
        assert client.post(path, json=example).status_code == 200, path


def test_methods(client: httpx.Client) -> None:
    for path in ("/v2/models/digits/infer", "/v1/models/digits:predict", "/models/digits/predict"):
        answer = client.put(path, json={})
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert client.post("/v2/health/live").status_code == 405
    assert client.get("/v2/nothing").status_code == 404
