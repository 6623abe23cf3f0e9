"""A protocol is one file: put beside the others it answers, is described and is guarded, and nothing else names it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hone.services.access.api_keys import add_key
from hone.services.http.heads import PROBES
from hone.services.protocols import all_endpoints
from hone.services.protocols.base import Endpoint, register
from hone.services.protocols.predict import PREDICT
from hone.services.protocols.v1 import V1
from hone.services.routes.paths import PATHS
from tests.models.dense import dense_answer
from tests.servers import ROOT, Server, put, server

LINES = '''
import numpy as np

from ..http.failures import RequestError
from .base import Endpoint, Part, Protocol, Request, register
from .predict import PREDICT

FORM = {"text/plain": {"schema": {"type": "string"}}}


@register(Endpoint("lines", model="/lines/{name}"))
@register(PREDICT, b"text/plain")
class Lines(Protocol):
    """A row a line."""

    def decode(self, head, body):
        try:
            rows = np.array([line.split() for line in bytes(body).splitlines()], np.float32)
        except ValueError as error:
            raise RequestError(f"not lines of numbers: {error}") from None
        return Request(self.limits.check(self.signature, {self.signature.inputs[0].name: rows}))

    def encode(self, request, outputs):
        lines = [" ".join(map(str, row)) for row in next(iter(outputs.values()))]
        return [(b"content-type", b"text/plain")], "\\n".join(lines).encode()

    @classmethod
    def describe(cls, artifact, rows):
        return Part(FORM, FORM, summary="Lines", returns="A line a row.")
'''
SERVICE = """
import bentoml
import hone.services.protocols

hone.services.protocols.__path__.append({folder!r})

from hone.services.base import ModelService, configuration, stored


@bentoml.service(name="digits", **configuration())
class Digits(ModelService):
    models = tuple(stored("digits", __file__))
"""
ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)
TEXT = "\n".join(" ".join(map(str, row)) for row in ROWS)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    put(home, home / "artifact", "digits", "v1")
    return home


@pytest.fixture(scope="module")
def key(home: Path) -> str:
    return add_key(home / "keys.yaml", "caller", ("predict",))


@pytest.fixture(scope="module")
def speaking(home: Path, key: str) -> Iterator[Server]:
    """A service in whose folder of protocols there is one file more."""
    folder = home / "protocols"
    folder.mkdir()
    (folder / "lines.py").write_text(LINES)
    (home / "more.py").write_text(SERVICE.format(folder=str(folder)))
    command = [sys.executable, "-m", "bentoml", "serve", "more:Digits", "--port", "{port}"]
    with server(command, home, cwd=home, PYTHONPATH=str(ROOT), HONE_API_KEYS=str(home / "keys.yaml")) as running:
        yield running


@pytest.mark.parametrize("path", ["/lines/digits", "/predict", "/models/digits/versions/v1/predict"])
def test_a_file_more_answers_at_its_own_paths_and_at_others(speaking: Server, key: str, path: str) -> None:
    headers = {"x-api-key": key, "content-type": "text/plain"}
    answer = speaking.client.post(path, content=TEXT, headers=headers)
    assert answer.status_code == 200, answer.text
    found = np.array([line.split() for line in answer.text.splitlines()], np.float32)
    np.testing.assert_allclose(found, dense_answer(ROWS), rtol=1e-5)
    assert "not lines" in speaking.client.post(path, content="a b", headers=headers).json()["error"]


def test_it_is_guarded_as_the_others_are(speaking: Server, key: str) -> None:
    known, unknown = (speaking.client.post(f"/lines/{name}", content=TEXT) for name in ("digits", "nothing"))
    assert known.status_code == unknown.status_code == 401 and known.content == unknown.content
    headers = {"x-api-key": key}
    assert speaking.client.get("/lines/digits", headers=headers).status_code == 405
    assert speaking.client.post("/lines/nothing", content=TEXT, headers=headers).status_code == 404


def test_it_is_described_and_counted(speaking: Server, key: str) -> None:
    headers = {"x-api-key": key}
    speaking.client.post("/lines/digits", content=TEXT, headers=headers)
    paths = speaking.client.get("/docs.json", headers=headers).json()["paths"]
    assert paths["/lines/digits"]["post"]["summary"] == "Lines"
    assert {"text/plain", "application/json"} < paths["/predict"]["post"]["requestBody"]["content"].keys()
    assert 'protocol="lines"' in speaking.client.get("/metrics").text
    text = speaking.client.post("/predict", content=b"", headers={**headers, "content-type": "text/html"})
    assert text.status_code == 415 and "text/plain" in text.json()["error"]


def test_paths_are_each_there_once_and_in_the_docs() -> None:
    templates = [path.template for path in PATHS]
    assert len(set(templates)) == len(templates)
    assert {probe.decode() for probe in PROBES} < {path.template for path in PATHS if path.open}
    page = (ROOT / "docs" / "serving.md").read_text()
    for endpoint, protocols in all_endpoints().items():
        assert endpoint.model.replace("{name}", "NAME").partition("/infer")[0] in page
        if endpoint is PREDICT:
            assert all(value.decode() in page for value in protocols)


@pytest.mark.parametrize(
    "wrong",
    [
        {"model": "/{name}"},
        {"model": "lines/{name}"},
        {"model": "/lines"},
        {"model": "/lines/{name}", "version": "/lines/{name}/v"},
        {"model": "/lines/{name}", "default": "/lines/{version}"},
    ],
)
def test_endpoint_whose_paths_could_take_others_place_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="endpoint 'lines'"):
        Endpoint("lines", **wrong)  # type: ignore[arg-type]


def test_path_or_content_type_of_another_protocol_is_refused() -> None:
    with pytest.raises(ValueError, match="/predict is registered twice"):
        register(Endpoint("lines", model="/lines/{name}", default="/predict"))(V1)
    with pytest.raises(ValueError, match="'application/json' is registered twice"):
        register(PREDICT, b"application/json")(V1)
    assert [endpoint.label for endpoint in all_endpoints()].count("lines") == 0
