"""The JSON Schema of recipes, with every pass's options, for editors."""

from __future__ import annotations

import json
from typing import Any

from hone.recipe import Recipe
from hone.recipe.variants import AUTO

from ..passes import all_passes
from ..proof.metrics import all_metrics
from ..run.plan import PRESETS
from ..sources import all_sources


def recipe_schema() -> str:
    """Return the schema as JSON text (JSON Schema draft 2020-12)."""
    schema: dict[str, Any] = Recipe.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Hone recipe"
    definitions = schema["$defs"]
    _add_passes(definitions)
    # The short forms that the recipe accepts: a preset's name, a data set's source as a plain string, and a
    # list of metrics.
    variants = schema["properties"]["variants"]
    listed = {"anyOf": [{"enum": [AUTO, *sorted(PRESETS)]}, {"$ref": "#/$defs/VariantSpec"}]}
    schema["properties"]["variants"] = {
        "anyOf": [{"const": AUTO}, {"type": "array", "minItems": 1, "items": listed}],
        "default": AUTO,
        "description": variants["description"],
    }
    for field in ("calibration", "evaluation"):
        description = schema["properties"][field].get("description", "")
        schema["properties"][field] = {
            "anyOf": [{"type": "string"}, {"$ref": "#/$defs/DataSpec"}],
            "description": description or definitions["DataSpec"].get("description", ""),
        }
    _add_steps(schema)
    function = definitions["PythonSpec"]["properties"]["predict"]["anyOf"][0]
    definitions["SourceSpec"]["properties"]["python"]["anyOf"].insert(0, function)
    framework = definitions["SourceSpec"]["properties"]["framework"]
    framework["anyOf"] = [{"enum": list(all_sources())}, {"type": "null"}]
    metrics = [{"enum": list(all_metrics())}, {"type": "string", "pattern": ":"}]
    for kind in ("QualitySpec", "MetricSpec"):
        metric = definitions[kind]["properties"]["metric"]
        metric["anyOf"] = metrics
        for key in ("title", "type"):
            metric.pop(key, None)
    one = {"anyOf": [*metrics, {"$ref": "#/$defs/QualitySpec"}]}
    another = {"anyOf": [*metrics, {"$ref": "#/$defs/MetricSpec"}]}
    schema["properties"]["quality"] = {
        "anyOf": [
            {"$ref": "#/$defs/QualitySpec"},
            {"type": "array", "minItems": 1, "prefixItems": [one], "items": another},
        ],
        "description": definitions["QualitySpec"].get("description", ""),
    }
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def _add_steps(schema: dict[str, Any]) -> None:
    """Let a step that needs no options stand as its name alone; each place of a list holds one."""
    for field, kind in (("preprocess", "PreStep"), ("postprocess", "PostStep")):
        definition = schema["$defs"][kind]
        definition |= {"minProperties": 1, "maxProperties": 1}
        kinds = {
            name: schema["$defs"][options["anyOf"][0]["$ref"].rsplit("/", 1)[1]]
            for name, options in definition["properties"].items()
        }
        alone = [name for name, one in kinds.items() if not one.get("required") and "file" not in one["properties"]]
        steps = [{"$ref": f"#/$defs/{kind}"}, *([{"enum": sorted(alone)}] if alone else [])]
        schema["properties"][field]["items"] = {"anyOf": steps}


def _add_passes(definitions: dict[str, Any]) -> None:
    """Add every pass with its options, and let variants name them and the presets."""
    options = {name: _options(definition.options.model_json_schema()) for name, definition in all_passes().items()}
    definitions["PassOptions"] = {"type": "object", "additionalProperties": False, "properties": options}
    definitions["Pass"] = {
        "anyOf": [
            {"enum": sorted(options)},
            {"$ref": "#/$defs/PassOptions", "minProperties": 1, "maxProperties": 1},
        ]
    }
    variant = definitions["VariantSpec"]["properties"]
    variant["preset"] = {"enum": sorted(PRESETS), "description": "A ready chain of passes."}
    variant["passes"] = {"type": "array", "items": {"$ref": "#/$defs/Pass"}, "minItems": 1}
    variant["options"]["$ref"] = "#/$defs/PassOptions"
    for key in ("additionalProperties", "type", "title"):
        variant["options"].pop(key, None)


def _options(schema: dict[str, Any]) -> dict[str, Any]:
    schema.pop("title", None)
    return {"anyOf": [schema, {"type": "null"}]} if not schema.get("required") else schema
