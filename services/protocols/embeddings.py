"""OpenAI's embeddings: `POST /v1/embeddings`, for models that take one text and answer `embedding`.

`{"model": NAME, "input": text, texts, tokens or lists of tokens}`, with `encoding_format` float or base64
(little-endian float32). Schema: the OpenAI API reference, "Create embeddings".
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
import orjson

from hone.artifact import Artifact
from hone.errors import shorten
from hone.signature import BATCH, Tensors
from hone.steps.answer import Answer
from hone.steps.ready import offered_by

from ..http.failures import NotFoundError, RequestError
from ..http.responses import JSON, Body, Fields, Head
from .base import Endpoint, Part, Protocol, Request, register, timeout_of
from .json_tensors import read_json
from .schemas import json_body, object_of

OUTPUT = "embedding"
KNOWN = ("input", "model", "encoding_format", "dimensions", "user")
FORMATS = ("float", "base64")


@register(Endpoint("embeddings", model="/models/{name}/embeddings", default="/v1/embeddings", first_of_kind=True))
class Embeddings(Protocol):
    """Texts, or tokens that the caller made, to a vector each."""

    @classmethod
    def serves(cls, artifact: Artifact) -> bool:
        steps, offered = artifact.manifest.steps, offered_by(artifact)
        tokenizes = steps is not None and any(one.kind == "tokenize" for one in steps.preprocess)
        vectors = [spec for spec in offered.outputs if spec.name == OUTPUT]
        floats = bool(vectors) and vectors[0].numpy_dtype.kind == "f" and len(vectors[0].shape) == 2
        return tokenizes and floats and len(offered.inputs) == 1 and offered.inputs[0].shape == (BATCH,)

    def decode(self, head: Head, body: Body) -> Request:
        content = read_json(body, self.limits)
        if not isinstance(content, dict) or "input" not in content:
            raise RequestError('the body must be {"model": name, "input": text or list of texts}')
        for key in content:
            if key not in KNOWN:
                raise RequestError(f"unknown field '{shorten(key)}'; known are {', '.join(KNOWN)}")
        self._check_model(content.get("model", self.name))
        form = content.get("encoding_format") or "float"
        if form not in FORMATS:
            raise RequestError(f"encoding_format is {shorten(form)}; it must be float or base64")
        size = next(spec.shape[1] for spec in self.signature.outputs if spec.name == OUTPUT)
        if content.get("dimensions") not in (None, size):
            raise RequestError(f"dimensions is {shorten(content['dimensions'])}; the model's vectors have {size}")
        rows = _rows(content["input"])
        self.limits.check_rows(len(rows))
        texts = np.empty(len(rows), dtype=object)
        for index, row in enumerate(rows):
            texts[index] = row
        return Request({self.signature.inputs[0].name: texts}, timeout_of(head), form)

    def _check_model(self, name: Any) -> None:
        if name not in (self.name, self.tag):
            raise NotFoundError(
                f"'{shorten(name)}' doesn't answer here but {self.name}; another model's address is "
                "/models/NAME/embeddings (a client's base_url: /models/NAME)"
            )

    def encode(self, request: Request, outputs: Tensors) -> tuple[Fields, Body]:
        vectors: Any = np.ascontiguousarray(outputs[OUTPUT], np.float32)
        if request.form == "base64":
            vectors = [b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
        tokens = outputs.tokens if isinstance(outputs, Answer) else 0
        content = {
            "object": "list",
            "data": [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(vectors)],
            "model": self.name,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
        return [(b"content-type", JSON)], orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)

    @classmethod
    def describe(cls, artifact: Artifact, rows: Tensors) -> Part:
        name = artifact.manifest.name
        text, tokens = {"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
        several = [{"type": "array", "items": item, "minItems": 1} for item in (text, tokens)]
        asked = {
            "input": {"anyOf": [text, tokens, *several]},
            "model": {"type": "string", "enum": [name]},
            "encoding_format": {"type": "string", "enum": list(FORMATS)},
            "dimensions": {"type": "integer"},
            "user": {"type": "string"},
        }
        return Part(
            json_body(object_of(asked, ["input"]), {"model": name, "input": ["A text.", "Another one."]}),
            json_body({"type": "object", "properties": {"data": {"type": "array", "items": {"type": "object"}}}}),
            summary=f"Embed texts with {name} (OpenAI)",
            returns="A vector for each text, and how many tokens they are.",
        )


def _rows(given: Any) -> list[Any]:
    """Return texts or lists of tokens, one a row.

    Raises:
        RequestError: it is neither, or there are none.
    """
    rows = [given] if isinstance(given, str) or (isinstance(given, list) and given and type(given[0]) is int) else given
    if not isinstance(rows, list) or not rows:
        raise RequestError('"input" must be a text, a list of texts, tokens, or a list of lists of tokens')
    kind = type(rows[0])
    if kind not in (str, list) or any(type(row) is not kind for row in rows):
        raise RequestError('"input" must hold texts only, or lists of tokens only')
    return rows
