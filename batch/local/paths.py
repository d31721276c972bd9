"""The addresses of the local queue: what a path means, and which URLs an answer names. Pure.

Imports nothing of the project.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

__all__ = ["Call", "absolute", "app_of", "call_of", "file_id_of", "file_path", "is_file", "request_urls"]

_FILES = "/files/b/"
_FILE = re.compile(rf"{_FILES}[0-9a-f]{{32}}/")
_NAMESPACES = ("workflows", "comfy")
_VERBS = ("", "status", "status/stream", "cancel", "response")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A question about one request: `verb` is `status`, `status/stream`, `cancel`, or empty for the result."""

    application: str
    request_id: str
    verb: str


def app_of(endpoint: str) -> str | None:
    """`owner/app` of an endpoint id, its namespace kept; None when it is no id. An app's requests share URLs."""
    parts = endpoint.split("/")
    count = 3 if parts[0] in _NAMESPACES else 2
    return "/".join(parts[:count]) if len(parts) >= count and all(parts) else None


def call_of(path: str) -> Call | None:
    """What a path below the root asks about a request; None when it asks about none.

    Decided by the last `requests` segment, not by depth: the clients use owner/app, the OpenAPI documents the full id.
    """
    parts = path.strip("/").split("/")
    if "requests" not in parts:
        return None
    at = len(parts) - 1 - parts[::-1].index("requests")
    application, rest = "/".join(parts[:at]), parts[at + 1 :]
    verb = "/".join(rest[1:])
    if not rest or app_of(application) is None or verb not in _VERBS:
        return None
    return Call(application=application, request_id=rest[0], verb="" if verb == "response" else verb)


def request_urls(base: str, app: str, request_id: str) -> dict[str, str]:
    """The three URLs of a request, on the host the question came to."""
    response_url = f"{base}/{app}/requests/{request_id}"
    return {
        "response_url": response_url,
        "status_url": f"{response_url}/status",
        "cancel_url": f"{response_url}/cancel",
    }


def file_path(file_id: str, name: str) -> str:
    """Where a file is served, without the host: an answer is kept so, and outlives a change of port."""
    return f"{_FILES}{file_id}/{quote(name)}"


def file_id_of(path: str) -> str | None:
    """The id in a file's path, None when it is no file's path."""
    return path.removeprefix(_FILES).split("/")[0] if path.startswith(_FILES) else None


def is_file(path: str) -> bool:
    """Whether a path is that of a file that is served."""
    return path.startswith(_FILES)


def absolute(body: Any, base: str) -> Any:
    """An answer with the host put before every file path in it."""
    if isinstance(body, str):
        return base + body if _FILE.match(body) else body
    if isinstance(body, dict):
        return {name: absolute(value, base) for name, value in body.items()}
    return [absolute(value, base) for value in body] if isinstance(body, list) else body
