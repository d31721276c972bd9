"""Documents as nobody has published them yet, but might: every shape of a schema, well-formed and not, by a seed."""

from __future__ import annotations

import random
from typing import Any

from endpoint_support import document_of

__all__ = ["CELLS", "odd_document"]

NAMES = ("prompt", "image_url", "image_urls", "mask", "video", "audio_url", "url", "webhook_url", "loras", "image_size")
NAMES += ("seed", "duration", "options", "voice", "scale", "frames", "input.id", "id", "a b", "été", "path", "elements")
NAMES += (
    "x.y",
    "takes",
    "endpoint",
    "resolution",
    "sync_mode",
    "num_frames",
    "aspect_ratio",
    "data",
    "config",
    "ref[0]",
)

CELLS: tuple[Any, ...] = (
    *("5", "5.0", "-1", "0.3", "true", "no", "auto", "null", "", " ", "a; b", "1; 2", "cat.jpg", "a,b", "16:9", "NaN"),
    *('{"a": 1}', '{"url": "cat.jpg"}', "[1, 2]", '["a", null]', "[", "{", "[[[]]]", '{"width": 5, "height": {}}'),
    *("1e400", "é" * 300, "1e5", "-.5", "+7", "0x10", "Err:502", "=1+1"),
    *("https://example.com/a.png", "data:image/png;base64,AAAA", "data:", "x" * 5000, "[" * 3000, '"', "\n"),
    *(5, 0.5, True, None, [], [1, [2]], {}, {"path": "cat.jpg", "x": [{"image_url": "cat.jpg"}]}),
)  # fmt: skip

_ODD = (None, 5, "text", [], {}, [1], True, 1e308, -1, {"a": {}}, ["string", 5])
_KEYWORDS = ("type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "multipleOf", "minLength", "maxItems")
_KEYWORDS += ("pattern", "required", "items", "properties", "anyOf", "allOf", "oneOf", "additionalProperties", "not")
_KEYWORDS += ("format", "default", "examples", "description", "title", "x-fal", "ui", "nullable", "uniqueItems", "$ref")
_KEYWORDS += ("x-fal-order-properties", "prefixItems", "if", "contentMediaType", "_fal_ui_field", "minProperties")


def odd_document(seed: int) -> dict[str, Any]:
    """The document of one seed: two thirds are well-formed JSON Schema, the rest has some keywords spoilt."""
    maker = _Maker(random.Random(seed), is_spoilt=seed % 3 == 2)
    schemas = {name: maker.schema(3) for name in ("A", "B", "C")}
    schemas["Loop"] = {"type": "object", "properties": {"next": {"$ref": "#/components/schemas/Loop"}, "n": {}}}
    return document_of(maker.wanted(), maker.schema(3), schemas=schemas, endpoint_id="acme/odd")


class _Maker:
    def __init__(self, rng: random.Random, *, is_spoilt: bool) -> None:
        self.rng = rng
        self.is_spoilt = is_spoilt

    def wanted(self) -> dict[str, Any]:
        made = self.object(4)
        made["required"] = [name for name in made["properties"] if self.rng.random() < 0.2]
        if self.rng.random() < 0.1:
            return {"anyOf": [made, self.object(2)]}
        return {"allOf": [made, {"description": "more"}]} if self.rng.random() < 0.1 else made

    def schema(self, depth: int) -> dict[str, Any]:
        makers = [self.text, self.number, self.boolean, self.typed, self.nothing, self.choice]
        if depth > 0:
            makers += [self.object, self.array, self.union, self.all_of, self.reference, self.free]
        made: dict[str, Any] = self.rng.choice(makers)(depth)
        made |= self.words()
        if self.is_spoilt and self.rng.random() < 0.2:
            made[self.rng.choice(_KEYWORDS)] = self.rng.choice(_ODD)
        return made

    def words(self) -> dict[str, Any]:
        """What a document says for people, and what it shows."""
        said: dict[str, Any] = {
            "title": "A Title",
            "description": self.rng.choice(
                ["", "The URL of the image.", "URL or path", "A web page", "Base64 data URI"]
            ),
            "default": self.rng.choice([None, False, 0, "auto", [], {"width": 512}, ["a"]]),
            "examples": self.rng.choice([[], ["a cat"], [5], [{"a": 1}], [["x", "y"]], [None]]),
            "x-fal": {"max_file_size": 100, "min_width": 5, "timeout": 20.0},
            "ui": self.rng.choice([{"field": "image"}, {"important": True}, "image"]),
        }
        return {name: value for name, value in said.items() if self.rng.random() < 0.25}

    def text(self, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "string"}
        extra: dict[str, Any] = {"minLength": 1, "maxLength": 9, "pattern": r"^\w+$", "format": "uri"}
        return made | {name: value for name, value in extra.items() if self.rng.random() < 0.2}

    def number(self, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {"type": self.rng.choice(["integer", "number"])}
        extra: dict[str, Any] = {"minimum": 0, "maximum": 10, "exclusiveMinimum": -1, "multipleOf": 0.1}
        extra["exclusiveMaximum"] = self.rng.choice([11, True, False])
        return made | {name: value for name, value in extra.items() if self.rng.random() < 0.3}

    def boolean(self, depth: int) -> dict[str, Any]:
        return {"type": "boolean", "default": self.rng.choice([True, False])}

    def typed(self, depth: int) -> dict[str, Any]:
        return {"type": self.rng.sample(["string", "integer", "number", "boolean", "null", "array", "object"], k=2)}

    def nothing(self, depth: int) -> dict[str, Any]:
        return {}

    def choice(self, depth: int) -> dict[str, Any]:
        members = self.rng.choice([["a", "b"], [1, 2, 3], ["1", 2, None, True], [0.5, 1], ["auto", {"w": 1}], [["x"]]])
        made: dict[str, Any] = {"enum": members} if self.rng.random() < 0.8 else {"const": members[0]}
        return made | ({"type": "string"} if self.rng.random() < 0.5 else {})

    def object(self, depth: int) -> dict[str, Any]:
        names = self.rng.sample(NAMES, k=self.rng.randint(1, 5))
        made: dict[str, Any] = {"type": "object", "properties": {name: self.schema(depth - 1) for name in names}}
        if self.rng.random() < 0.3:
            made["required"] = names[:1]
        if self.rng.random() < 0.3:
            made["additionalProperties"] = self.rng.choice([True, False, {"type": "integer"}])
        if self.rng.random() < 0.5:
            made["x-fal-order-properties"] = [*reversed(names), "gone"]
        return made

    def array(self, depth: int) -> dict[str, Any]:
        made: dict[str, Any] = {"type": "array", "items": self.schema(depth - 1)}
        extra: dict[str, Any] = {"minItems": 1, "maxItems": 2, "uniqueItems": True}
        return made | {name: value for name, value in extra.items() if self.rng.random() < 0.3}

    def union(self, depth: int) -> dict[str, Any]:
        parts = [self.schema(depth - 1) for _ in range(self.rng.randint(1, 3))]
        return {self.rng.choice(["anyOf", "oneOf"]): [*parts, {"type": "null"}]}

    def all_of(self, depth: int) -> dict[str, Any]:
        return {"allOf": [self.schema(depth - 1) for _ in range(self.rng.randint(1, 2))]}

    def reference(self, depth: int) -> dict[str, Any]:
        return {"$ref": f"#/components/schemas/{self.rng.choice(['A', 'B', 'C', 'Loop', 'Gone'])}"}

    def free(self, depth: int) -> dict[str, Any]:
        return {"type": "object", "additionalProperties": self.rng.choice([True, {}, {"type": "string"}])}
