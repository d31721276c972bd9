"""OpenAPI documents as plain JSON Schema: references resolved, the words of OpenAPI 3.0 translated. Pure.

Knows nothing of one endpoint; `endpoint.py` asks it about one document. It does not judge inputs: `check.py` does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["branches", "checkable", "has_files", "input_schema", "output_schema", "types"]

Schema = Mapping[str, Any]

# What decides whether a value is allowed. Everything else in a document is for people and is left out, `format` too:
# fal's documents say `binary` and `uri` where plain text is meant.
_CHECKED = frozenset(
    {"type", "enum", "const", "required", "multipleOf", "pattern", "uniqueItems"}
    | {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
    | {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
)


def input_schema(document: Schema, endpoint_id: str) -> dict[str, Any]:
    """The schema of what `POST /<id>` takes, references resolved. KeyError when the document has none."""
    for path, operations in _paths(document, endpoint_id):
        if "{" not in path and isinstance(operations, Mapping) and "post" in operations:
            return _resolved(operations["post"]["requestBody"]["content"]["application/json"]["schema"], document)
    raise KeyError(f"no POST /{endpoint_id}")


def output_schema(document: Schema, endpoint_id: str) -> dict[str, Any]:
    """The schema of a good result, references resolved; empty when the document does not say."""
    for path, operations in _paths(document, endpoint_id):
        if path.endswith("/requests/{request_id}") and isinstance(operations, Mapping) and "get" in operations:
            content = operations["get"].get("responses", {}).get("200", {}).get("content", {})
            return _resolved(content.get("application/json", {}).get("schema", {}), document)
    return {}


def checkable(schema: Schema) -> dict[str, Any]:
    """The same schema in the words a JSON Schema validator knows, without what is only for people."""
    made: dict[str, Any] = {name: value for name, value in schema.items() if name in _CHECKED}
    for bound, limit in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        # OpenAPI 3.0 writes the bound under the one name and only a flag under the other.
        if isinstance(made.get(limit), bool) and made.pop(limit) and bound in made:
            made[limit] = made.pop(bound)
    for name in ("allOf", "anyOf", "oneOf"):
        if schema.get(name):
            made[name] = [checkable(part) for part in schema[name]]
    if isinstance(schema.get("properties"), Mapping):
        made["properties"] = {name: checkable(part) for name, part in schema["properties"].items()}
    for name in ("items", "additionalProperties"):
        part = schema.get(name)
        if isinstance(part, Mapping):
            made[name] = checkable(part)
        elif isinstance(part, bool):
            made[name] = part
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") else made


def branches(schema: Schema) -> Iterator[Schema]:
    """The alternatives a value may take: `anyOf`, `oneOf` and `allOf` opened, else the schema itself."""
    parts = [part for name in ("anyOf", "oneOf", "allOf") for part in schema.get(name, ())]
    if not parts:
        yield schema
        return
    for part in parts:
        yield from branches(part)


def types(schema: Schema) -> tuple[str, ...]:
    """The JSON types a value may have, `null` left out, in the document's order; empty when it does not say."""
    found: dict[str, None] = {}
    for branch in branches(schema):
        stated = branch.get("type", ())
        for name in (stated,) if isinstance(stated, str) else stated:
            if name != "null":
                found[name] = None
    return tuple(found)


def has_files(schema: Schema) -> bool:
    """Whether a value of this schema holds a file: an object with a text `url`, at any depth."""
    for branch in branches(schema):
        properties = branch.get("properties", {})
        if "string" in types(properties.get("url", {})):
            return True
        inner = [*properties.values(), branch.get("items"), branch.get("additionalProperties")]
        if any(has_files(part) for part in inner if isinstance(part, Mapping)):
            return True
    return False


def _paths(document: Schema, endpoint_id: str) -> list[tuple[str, Any]]:
    """The document's paths, those of the endpoint itself first: a pinned document may know it under another prefix."""
    paths = document.get("paths", {})
    return sorted(paths.items(), key=lambda item: not item[0].startswith(f"/{endpoint_id}"))


def _resolved(schema: Schema, document: Schema) -> dict[str, Any]:
    made = _without_references(schema, document, ())
    if not isinstance(made, dict):
        raise TypeError("its schema is not an object")
    return made


def _without_references(part: Any, document: Schema, above: tuple[str, ...]) -> Any:
    if isinstance(part, list):
        return [_without_references(inner, document, above) for inner in part]
    if not isinstance(part, Mapping):
        return part
    reference = part.get("$ref")
    if isinstance(reference, str):
        if reference in above:  # a schema that holds itself: anything goes from here on
            return {}
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            target = target[step.replace("~1", "/").replace("~0", "~")]
        rest = {name: value for name, value in part.items() if name != "$ref"}
        return {**_without_references(target, document, (*above, reference)), **rest}
    return {name: _without_references(value, document, above) for name, value in part.items()}
