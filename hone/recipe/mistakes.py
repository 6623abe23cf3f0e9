"""What is wrong in a recipe's file, in lines for people: file, line, field, and the nearest valid name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hone.errors import RecipeError, did_you_mean

Location = tuple[int | str, ...]
"""The way to a field: names of fields, and places in lists."""


def check_keys(path: Path, node: yaml.Node | None) -> None:
    """Raise RecipeError when a key is given twice: YAML keeps the last without a word, and a field would be lost."""
    if isinstance(node, yaml.SequenceNode):
        for child in node.value:
            check_keys(path, child)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.value in seen:
            raise RecipeError(f"{path}:{key.start_mark.line + 1}: '{key.value}' is given twice")
        seen.add(key.value)
        check_keys(path, value)


def explain(path: Path, node: yaml.Node | None, error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Turn pydantic's errors into `file:line: field: message` lines, one for each mistake.

    Args:
        path: the file.
        node: its content, as `yaml.compose` gives it.
        error: what is wrong with it.
        model: that it was checked against.
    """
    mistakes: dict[tuple[int, str], list[str]] = {}
    for item in error.errors():
        location = tuple(part for part in item["loc"] if not _is_union_branch(part))
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "unknown field" + did_you_mean(str(location[-1]), _siblings(location, model))
        elif item["type"] == "missing":
            message = "is required"
        elif item["type"] != "value_error":
            message = f"{_plainly(item, location)} (got {item['input']!r})"
        said = mistakes.setdefault((_line(node, location), _field_path(location)), [])
        said += [message] if message not in said else []
    return [
        f"{path}:{line}: {field + ': ' if field else ''}{' or '.join(messages)}"
        for (line, field), messages in sorted(mistakes.items())
    ]


def _plainly(item: ErrorDetails, location: Location) -> str:
    """What a value should be, where pydantic would tell how it checked."""
    limits = item.get("ctx", {})
    if location[-1:] in (("quality_drop",), ("drop",)):
        return "write a number (0.01) or a share of the source's quality ('1%')"
    if item["type"] == "string_pattern_mismatch":
        return "write module:function, such as model:load"
    if item["type"] == "too_short":
        return f"needs at least {limits['min_length']} of them"
    message = item["msg"]
    return f"{message[0].lower()}{message[1:]}"


def _is_union_branch(part: int | str) -> bool:
    """Pydantic puts the tried branch of a union into the location; people don't write it."""
    return isinstance(part, str) and (part in ("int", "str", "float") or "constrained-" in part or "[" in part)


def _field_path(location: Location) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _siblings(location: Location, model: type[BaseModel]) -> list[str]:
    """Return the valid field names beside a misspelled one, by walking the model's JSON schema."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    current: dict[str, Any] = schema
    for part in location[:-1]:
        current = _resolve(current, definitions)
        if isinstance(part, int):
            current = current.get("items", {})
        else:
            current = current.get("properties", {}).get(part) or current.get("additionalProperties") or {}
        if not isinstance(current, dict):
            return []
    return list(_resolve(current, definitions).get("properties", {}))


def _resolve(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    while True:
        if "anyOf" in schema:
            schema = next((option for option in schema["anyOf"] if "$ref" in option), schema["anyOf"][0])
        if "$ref" not in schema:
            return schema
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]


def _line(node: yaml.Node | None, location: Location) -> int:
    """Return the 1-based line of a field, or of its nearest parent that the file has."""
    line = node.start_mark.line if node else 0
    for part in location:
        child: tuple[yaml.Node, yaml.Node] | None = None
        if isinstance(node, yaml.MappingNode):
            child = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            child = (node.value[part], node.value[part])
        if child is None:
            break
        line = child[0].start_mark.line
        node = child[1]
    return line + 1
