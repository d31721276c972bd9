"""One server in the place of fal's many hosts: which of them a call is for, also when it comes through a proxy route.

ASGI middleware before everything else; imports nothing of the project. The JavaScript client in a browser sends each
call to a route of the site's own server, with the address it means in a header; that route holds the key.
"""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["PROXY_PATH", "RUN_PREFIX", "TARGET", "Hosts"]

PROXY_PATH = "/api/fal/proxy"
RUN_PREFIX = "/run"
"""Under this the synchronous call is served, which fal has on a host of its own."""

TARGET = "local.target"
"""In the scope: scheme and host of the address that a call through the proxy route means."""

_TARGET_HEADER = "x-fal-target-url"
_RUN_HOST = "fal.run"
_OF_FAL = re.compile(r"(.*\.)?fal\.(run|ai)")


class Hosts:
    """Turns each call into one of this server's own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = MutableHeaders(scope=scope)
            if scope["path"].rstrip("/") == PROXY_PATH:
                target = headers.get(_TARGET_HEADER, "")
                parts = urlsplit(target)
                if not target:
                    await PlainTextResponse(f"Missing the {_TARGET_HEADER} header", 400)(scope, receive, send)
                    return
                if parts.scheme != "https" or not _OF_FAL.fullmatch(parts.hostname or ""):
                    await PlainTextResponse(f"Invalid {_TARGET_HEADER} header", 412)(scope, receive, send)
                    return
                if not headers.get("authorization"):
                    headers["authorization"] = "Key of-the-proxy"
                scope = _at(scope, parts.hostname or "", parts.path, parts.query)
                scope[TARGET] = f"{parts.scheme}://{parts.netloc}"
            else:
                scope = _at(scope, headers.get("host", "").partition(":")[0], None, None)
        await self._app(scope, receive, send)


def _at(scope: Scope, host: str, raw_path: str | None, query: str | None) -> Scope:
    """The call as one for that host; without a path it keeps its own."""
    path = scope["path"] if raw_path is None else unquote(raw_path)
    raw = scope.get("raw_path") or b"" if raw_path is None else raw_path.encode()
    if host == _RUN_HOST and not path.startswith(f"{RUN_PREFIX}/"):
        path, raw = RUN_PREFIX + path, RUN_PREFIX.encode() + raw
    text = scope["query_string"] if query is None else query.encode()
    return {**scope, "path": path, "raw_path": raw, "query_string": text}
