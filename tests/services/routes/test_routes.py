"""Every path and call of a service with keys, asked without one: what answers is listed here, and nothing else may."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import orjson
import pytest

from hone import store
from hone.artifact import EXAMPLE, seal
from hone.services.access.api_keys import add_key
from hone.services.grpc.server import SERVICE
from hone.services.launch import free_port
from hone.services.routes.paths import PATHS
from tests.models.dense import dense_artifact
from tests.servers import DIGITS, ROOT, Server, server, use_store

WITHOUT_A_KEY = {
    "/livez", "/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready",
    "/static_content/index.css", "/static_content/swagger-initializer.js", "/static_content/swagger-ui-bundle.js",
    "/static_content/swagger-ui-standalone-preset.js", "/static_content/swagger-ui.css",
}  # fmt: skip
CALLS_WITHOUT_A_KEY = {"ServerLive", "ServerReady"}

REAL_ROWS = [[9.75, 8.5, 7.25, 6.5]]

MADE_UP = [
    "/v2/models/nothing", "/models/nothing/predict", "/v2/repository/nothing", "/v2/health", "/v1", "/models",
    "/nothing",
]  # fmt: skip

LIST_BENTOMLS = """
import os
from services.digits import Digits
for route in Digits.to_asgi().routes:
    print(route.path or "/")
    for name in os.listdir(route.app.directory) if hasattr(getattr(route, "app", None), "directory") else []:
        print(f"{route.path}/{name}")
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BentoML home whose model keeps a real row."""
    home, folder = tmp_path_factory.mktemp("shop"), tmp_path_factory.mktemp("artifacts") / "a"
    use_store(home)
    artifact = dense_artifact(folder, name="digits", run="1")
    (folder / EXAMPLE).write_bytes(orjson.dumps({"inputs": {"features": REAL_ROWS}}))
    store.put(seal(folder, artifact.manifest), "digits", "onnx-fp32-1")
    return home


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def key(shop: Path) -> str:
    return add_key(shop / "keys.yaml", "caller", ("predict",))


@pytest.fixture(scope="module")
def guarded(shop: Path, key: str, grpc_port: int) -> Iterator[Server]:
    keys = {"HONE_API_KEYS": str(shop / "keys.yaml"), "HONE_GRPC_PORT": str(grpc_port)}
    with server(DIGITS, shop, **keys) as running:
        yield running


def test_only_listed_paths_answer_without_a_key(guarded: Server, shop: Path, key: str) -> None:
    listing = subprocess.run(
        [sys.executable, "-c", LIST_BENTOMLS],
        cwd=ROOT, env={**os.environ, "BENTOML_HOME": str(shop)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    bentomls = set(listing.stdout.split())
    assert {"/predict", "/livez", "/schema.json", "/docs.json"} <= bentomls
    described = guarded.client.get("/docs.json", headers={"x-api-key": key}).json()["paths"]
    listed = {path.of("digits", "onnx-fp32-1") for path in PATHS}
    answered: set[str] = set()
    for path in sorted({*bentomls, *described, *listed, *MADE_UP}):
        for method in ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS"):
            status = guarded.client.request(method, path).status_code
            if status not in (401, 404):
                answered.add(path)
            assert status < 500, (method, path)
    assert answered == WITHOUT_A_KEY == {path.template for path in PATHS if path.open}


def test_only_listed_calls_answer_without_a_key(guarded: Server, grpc_port: int) -> None:
    calls = set(re.findall(r"^message (\w+)Request\b", (ROOT / "services/grpc/v2.proto").read_text(), re.MULTILINE))
    assert calls > {"ModelInfer", "RepositoryModelLoad", *CALLS_WITHOUT_A_KEY}
    answered = set()
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        for name in calls:
            try:
                channel.unary_unary(f"/{SERVICE}/{name}")(b"", timeout=10)
                answered.add(name)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAUTHENTICATED, name
    assert answered == CALLS_WITHOUT_A_KEY


def test_names_of_models_are_not_told_without_a_key(guarded: Server) -> None:
    for path in ("/models/{}/predict", "/v2/models/{}", "/v2/models/{}/infer", "/v1/models/{}:predict"):
        for method in ("GET", "POST"):
            known, unknown = (guarded.client.request(method, path.format(name)) for name in ("digits", "nothing"))
            assert (known.status_code, unknown.status_code) == (401, 401)
            assert known.content == unknown.content


def test_made_up_paths_leave_nothing_behind(guarded: Server) -> None:
    def series() -> int:
        return len(guarded.client.get("/metrics").text.splitlines())

    before = series()
    for index in range(300):
        assert guarded.client.get(f"/made-up-{index}").status_code == 404
    assert series() <= before + 5


def test_caller_with_a_key_reads_the_pages(guarded: Server, key: str) -> None:
    headers = {"x-api-key": key}
    page = guarded.client.get("/", headers=headers)
    assert "digits" in page.text and "-H &#x27;x-api-key: KEY&#x27;" in page.text
    assert guarded.client.get("/schema.json", headers=headers).json()["name"] == "digits"
    assert "example" in guarded.client.get("/docs.json", headers=headers).text


def test_page_asks_no_other_host_and_its_call_works(shop: Path) -> None:
    with server(DIGITS, shop) as running:
        page = running.client.get("/")
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
        assert page.headers["x-content-type-options"] == "nosniff"
        own = f"http://127.0.0.1:{running.port}"
        assert set(re.findall(r"(?:https?:)?//[\w.:-]+", page.text)) == {own}
        for path in re.findall(r'(?:src|href)="\.(/[^"]+)"', page.text):
            assert running.client.get(path).status_code == 200, path
        forged = running.client.get("/", headers={"host": '"><script>alert(1)</script>'})
        assert "<script>alert" not in forged.text and "http://localhost" in forged.text
        call = page.text.partition("<pre>")[2].partition("</pre>")[0]
        command = call.replace("&#x27;", "'").replace("&quot;", '"')
        done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60, check=True)
        assert orjson.loads(done.stdout)["model"] == "digits:onnx-fp32-1"


def test_real_rows_are_shown_to_those_who_may_predict(guarded: Server, shop: Path, key: str) -> None:
    def rows(client: httpx.Client, **headers: str) -> list[list[float]]:
        operation = client.get("/docs.json", headers=headers).json()["paths"]["/predict"]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        return example["inputs"]["features"]  # type: ignore[no-any-return]

    assert rows(guarded.client, **{"x-api-key": key}) == REAL_ROWS
    with server(DIGITS, shop, HONE_INSECURE="1") as running:
        assert rows(running.client) == [[0, 0, 0, 0]]
        assert str(REAL_ROWS[0][0]) not in running.client.get("/").text
