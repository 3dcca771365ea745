"""The JSON Schema of recipes, for completion and checks in an editor: every stage with its parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipelines.resolve import catalogue, resolve

PACKAGED = Path(__file__).parent / "recipes" / "recipe.schema.json"
"""The schema as it is published with the distribution; `make golden` writes it anew."""
NAME = "^[a-z][a-z0-9_]*$"
REFERENCE = {"type": "string", "pattern": r"\$\{", "description": "A reference to a parameter: ${name} or ${env:NAME}."}
SCALAR = {"type": ["string", "number", "boolean", "null", "array", "object"]}


def recipe_schema() -> dict[str, Any]:
    """A draft 2020-12 schema; stages of other distributions are allowed, with any parameters."""
    names = catalogue()
    stages = {name: _params(name) for name in names}
    known = [{"const": name, "description": doc} for name, doc in names.items()]
    step = {
        "type": "object", "required": ["uses"], "additionalProperties": False,
        "properties": {
            "uses": {"description": "Import path of a stage.",
                     "anyOf": [{"oneOf": known}, {"type": "string", "pattern": r"\.|\$\{"}]},
            "from": {"description": "The step or steps whose rows this one reads.",
                     "oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
            "given": {"description": "Small side tables: argument name to step.", "type": "object",
                      "additionalProperties": {"type": "string"}},
            "with": {"description": "Parameters of the stage.", "type": "object"},
            "where": {"description": "A condition on columns; other rows are passed over.", "type": "string"},
            "keep": {"description": "Store every column this step writes, even where a later step writes it again.",
                     "type": "boolean"},
            "onto": {"description": "The step whose rows a verdict goes home to.", "type": "string"},
        },
        "allOf": [{"if": {"properties": {"uses": {"const": name}}, "required": ["uses"]},
                   "then": {"properties": {"with": {"$ref": f"#/$defs/{name}"}}}} for name in stages],
    }  # fmt: skip
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema", "title": "gristmill recipe", "type": "object",
        "required": ["name", "steps"], "additionalProperties": False,
        "properties": {
            "name": {"description": "The recipe's name: an SQL schema.", "type": "string", "pattern": NAME},
            "params": {"description": "Values for ${name}, overridden with --set.", "type": ["object", "null"],
                       "additionalProperties": SCALAR},
            "steps": {"type": "object", "propertyNames": {"pattern": NAME}, "additionalProperties": step, "minProperties": 1},
            "publish": {"description": "Published name to step.", "type": ["object", "null"],
                        "additionalProperties": {"type": "string"}},
            "run": {"description": "How to run; never part of what is computed.", "type": ["object", "null"]},
        },
        "$defs": stages,
    }  # fmt: skip


def _params(name: str) -> dict[str, Any]:
    """The parameters of a stage; each may also be a reference."""
    schema: dict[str, Any] = resolve(name, "schema").params.model_json_schema(mode="validation")
    shared = schema.pop("$defs", {})
    schema = _moved(schema, name)
    schema["properties"] = {key: _or_reference(value) for key, value in schema.get("properties", {}).items()}
    if shared:
        schema["$defs"] = _moved(shared, name)
    return {key: value for key, value in schema.items() if key not in ("title", "description")}


def _moved(node: Any, name: str) -> Any:
    """References to a model's own definitions, from their new place in the whole schema; without generated titles."""
    if isinstance(node, dict):
        found = {key: _moved(value, name) for key, value in node.items() if not (key == "title" and isinstance(value, str))}
        if isinstance(found.get("$ref"), str) and found["$ref"].startswith("#/$defs/"):
            found["$ref"] = f"#/$defs/{name}/$defs/" + found["$ref"].removeprefix("#/$defs/")
        return _or_reference(found) if found.get("type") in ("integer", "number", "boolean") else found
    return [_moved(item, name) for item in node] if isinstance(node, list) else node


def _or_reference(value: dict[str, Any]) -> dict[str, Any]:
    outside: dict[str, Any] = {key: value[key] for key in ("description", "default") if key in value}
    inside = {key: each for key, each in value.items() if key not in outside and key not in ("how", "file")}
    return {**outside, "anyOf": [inside, REFERENCE]}


def schema_text() -> str:
    """The schema as it is written to files."""
    return json.dumps(recipe_schema(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"
