"""What OpenAPI says of feedback."""

from __future__ import annotations

from typing import Any

from hone.traffic.feedback import MOST_ENTRIES, MOST_FIGURES, MOST_ID

from ...protocols.schemas import json_body, object_of

ERRORS = ("400", "401", "403", "413", "429", "503")
_VALUE = {"type": ["number", "string", "boolean"]}
_ENTRY = object_of(
    {
        "request_id": {"type": "string", "minLength": 1, "maxLength": MOST_ID, "description": "x-request-id"},
        "label": {"anyOf": [_VALUE, {"type": "array"}], "description": "A value, or one for each row."},
        "figures": {"type": "object", "maxProperties": MOST_FIGURES, "additionalProperties": {"type": "number"}},
        "time": {"type": ["number", "string"], "description": "Seconds since 1970, or ISO 8601; now, if left out."},
    },
    ["request_id"],
)
EXAMPLE = {"feedback": [{"request_id": "6f1c-2a", "label": 1, "figures": {"revenue": 9.5}}]}


def operation(errors: dict[str, str]) -> dict[str, Any]:
    """Return the description.

    Args:
        errors: what statuses mean.
    """
    entries = {"type": "array", "items": _ENTRY, "minItems": 1, "maxItems": MOST_ENTRIES}
    problem = {"content": json_body(object_of({"error": {"type": "string"}}, ["error"]))}
    taken = json_body(object_of({"accepted": {"type": "integer"}}, ["accepted"]))
    return {
        "summary": "Say what answers turned out to be worth: labels and figures, by request id.",
        "requestBody": {
            "content": json_body(object_of({"feedback": entries}, ["feedback"]), EXAMPLE),
            "required": True,
        },
        "responses": {
            "200": {"description": "The entries are on the disk.", "content": taken},
            **{status: {"description": errors[status], **problem} for status in ERRORS},
        },
    }
