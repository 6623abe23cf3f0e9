"""Describe the inference paths in OpenAPI by the served artifacts: each protocol tells its part, with real rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.artifact import Artifact
from hone.signature import Tensors

from ..models.examples import example_request
from ..protocols import Endpoint, Protocol, endpoints_of
from ..protocols.base import CONTENT_TYPE
from ..protocols.schemas import json_body, object_of
from .feedback.described import operation as feedback_operation
from .feedback.endpoint import PATH as FEEDBACK

ERRORS = {
    "400": "The body can't be read, or a tensor is missing, unknown, or of a wrong dtype or shape.",
    "401": "Keys are required, and none or a wrong one came.",
    "403": "The key doesn't allow this.",
    "404": "No such model or version is loaded.",
    "413": "The body is over the size limit, compressed or not.",
    "415": "The content type or encoding is not supported.",
    "429": "The key's rate limit is used up; try again after `Retry-After` seconds.",
    "500": "The model failed on this request; the server's log says why.",
    "503": "The queue is full, the deadline can't be met or the service is stopping; try again after `Retry-After` s.",
}


class Specification(dict[str, Any]):
    """An OpenAPI document, with the method through which BentoML reads it."""

    def asdict(self) -> dict[str, Any]:
        return dict(self)


def describe(
    specification: Any, artifacts: dict[str, Artifact], default: str, *, real_rows: bool = True, feedback: bool = False
) -> Specification:
    """Return the specification with the inference paths of all models; `/predict` is the default one's.

    Args:
        specification: BentoML's.
        artifacts: by the model's name.
        default: the name that `/predict` answers for.
        real_rows: False gives zeros as examples, where not everybody who reads this may see data.
        feedback: on answers is taken.
    """
    document = Specification(specification.asdict())
    paths = document["paths"]
    for name, artifact in artifacts.items():
        if feedback:
            paths[FEEDBACK.format(name=name)] = {"post": {"tags": [name], **feedback_operation(ERRORS)}}
        rows = {key: array[:2] for key, array in example_request(artifact, real_rows=real_rows).items()}
        for endpoint, protocols in endpoints_of(artifact).items():
            operation = _operation(endpoint, protocols, artifact, rows)
            paths[endpoint.model.format(name=name)] = {"post": {"tags": [name], **operation}}
            if endpoint.default and (name == default or (endpoint.first_of_kind and endpoint.default not in paths)):
                paths.setdefault(endpoint.default, {}).setdefault("post", {}).update(operation)
    return document


def _operation(
    endpoint: Endpoint, protocols: Mapping[bytes, type[Protocol]], artifact: Artifact, rows: Tensors
) -> dict[str, Any]:
    """Return what OpenAPI says of an endpoint: by the protocol that takes what names none, and by those of other
    content types; it has no words for protocols that another header names."""
    main = protocols[b""].describe(artifact, rows)
    request, answer = dict(main.request), dict(main.answer)
    if endpoint.header == CONTENT_TYPE:
        for protocol in dict.fromkeys(protocols.values()):
            part = protocol.describe(artifact, rows)
            request.update(part.request)
            answer.update(part.answer)
    problem = {"content": json_body(object_of({"error": {"type": "string"}}, ["error"]))}
    return {
        "summary": main.summary,
        **({"description": main.description} if main.description else {}),
        "requestBody": {"content": request, "required": True},
        "responses": {
            "200": {"description": main.returns, "content": answer},
            **{status: {"description": meaning, **problem} for status, meaning in ERRORS.items()},
        },
    }
