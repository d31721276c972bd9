"""Made-up endpoints for tests: a document around some input properties, pinned in a folder and loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from batch import endpoints
from batch.endpoints import Endpoint

__all__ = ["ID", "document_of", "pin"]

ID = "acme/thing"


def document_of(
    wanted: Mapping[str, Any],
    given: Mapping[str, Any] | None = None,
    *,
    schemas: Mapping[str, Any] | None = None,
    endpoint_id: str = ID,
) -> dict[str, Any]:
    """A queue document as fal publishes them, whose input and output have these schemas."""
    result = {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Out"}}}}}
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/In"}}}}
    return {
        "openapi": "3.0.4",
        "info": {"title": f"Queue OpenAPI for {endpoint_id}"},
        "components": {"schemas": {"In": wanted, "Out": given or {"type": "object"}, **(schemas or {})}},
        "paths": {
            f"/{endpoint_id}/requests/{{request_id}}/status": {"get": {"responses": {}}},
            f"/{endpoint_id}": {"post": {"requestBody": body, "responses": {}}},
            f"/{endpoint_id}/requests/{{request_id}}": {"get": {"responses": result}},
        },
    }


def pin(
    folder: Path,
    properties: Mapping[str, Any],
    *,
    required: Sequence[str] = (),
    schemas: Mapping[str, Any] | None = None,
    given: Mapping[str, Any] | None = None,
    endpoint_id: str = ID,
) -> Endpoint:
    """An endpoint with these input properties, pinned in `folder` and loaded."""
    wanted = {"type": "object", "properties": dict(properties), "required": list(required)}
    document = document_of(wanted, given, schemas=schemas, endpoint_id=endpoint_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / endpoints.file_name(endpoint_id)).write_text(json.dumps(document), encoding="utf-8")
    return endpoints.load(endpoint_id, pinned_dir=folder)
