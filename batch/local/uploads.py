"""Files over HTTP: the upload calls of both official clients, and serving what was uploaded or rendered.

Of the project it imports only its neighbours. It knows nothing of requests.
"""

from __future__ import annotations

import json
import mimetypes
import re
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from batch.local import times
from batch.local.disk import Disk
from batch.local.lifecycle import lifecycle_of
from batch.local.luck import Luck
from batch.local.paths import file_path
from batch.local.replies import base_url, body_of, has_key, reply
from batch.local.runners import RunBlocking
from batch.local.shelf import FORBID, HIDE, StoredFile
from batch.local.store import Store

__all__ = ["Uploads"]

NAME_CHARS_MAX = 100
PARTS_MAX = 10_000
STORAGE = "fal-cdn-v3"
_UNKNOWN_TYPE = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """The routes and what they need."""

    store: Store
    disk: Disk
    clock: Callable[[], float]
    run_blocking: RunBlocking
    luck: Luck

    def routes(self) -> list[Route]:
        """Everything below /storage, /upload and /files."""
        return [
            Route("/storage/auth/token", self.token, methods=["POST"]),
            Route("/storage/upload/initiate", self.initiate, methods=["POST"]),
            Route("/storage/upload/initiate-multipart", self.initiate, methods=["POST"]),
            Route("/upload/{id}", self.put, methods=["PUT"]),
            Route("/upload/{id}/complete", self.complete, methods=["POST"]),
            Route("/upload/{id}/{number:int}", self.part, methods=["PUT"]),
            Route("/files/upload", self.upload, methods=["POST"]),
            Route("/files/upload/multipart", self.announce, methods=["POST"]),
            Route("/files/b/{id}/{name}/multipart/{upload_id}/complete", self.complete_with_token, methods=["POST"]),
            Route("/files/b/{id}/{name}/multipart/{upload_id}/{number:int}", self.part_with_token, methods=["PUT"]),
            Route("/files/b/{id}/{name:path}", self.serve, methods=["GET", "HEAD"]),
        ]

    async def token(self, request: Request) -> Response:
        """Python, step one: a token for the file host, which is this very host."""
        if not has_key(request):
            return _no_key()
        if request.query_params.get("storage_type", STORAGE) != STORAGE:
            return _wrong_storage()
        now = self.clock()
        value, expires_at = self.store.shelf.new_token(now)
        return reply(
            {
                "token": value,
                "token_type": "Bearer",
                "base_url": base_url(request),
                "created_at": times.iso_offset(now),
                "expires_at": times.iso_offset(expires_at),
            }
        )

    async def upload(self, request: Request) -> Response:
        """Python, step two: the bytes, under the token."""
        if not self._has_token(request):
            return _no_token()
        content = await body_of(request)
        file = self._announced(request)
        await self._save(file, content)
        return reply({"access_url": base_url(request) + file_path(file.id, file.name), "uploaded": True})

    async def announce(self, request: Request) -> Response:
        """Python, step two of a large file: where its parts go, which is below the address it will have."""
        if not self._has_token(request):
            return _no_token()
        file = self._announced(request)
        return reply({"access_url": base_url(request) + file_path(file.id, file.name), "uploadId": file.id})

    def _announced(self, request: Request) -> StoredFile:
        content_type = request.headers.get("content-type") or _UNKNOWN_TYPE
        name = _safe_name(request.headers.get("x-fal-file-name"), content_type)
        return self.store.shelf.announce(name, content_type, self.clock(), lifecycle_of(request.headers))

    def _has_token(self, request: Request) -> bool:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and self.store.shelf.knows_token(value.strip(), self.clock())

    async def initiate(self, request: Request) -> Response:
        """JavaScript, step one: where to put the bytes or their parts, and where they will be served."""
        if not has_key(request):
            return _no_key()
        if request.query_params.get("storage_type", STORAGE) != STORAGE:
            return _wrong_storage()
        try:
            wanted = json.loads(await body_of(request))
            content_type, name = str(wanted["content_type"]), str(wanted["file_name"])
        except (ValueError, KeyError, TypeError):
            return reply({"detail": "content_type and file_name are needed"}, 422)
        wish = lifecycle_of(request.headers)
        file = self.store.shelf.announce(_safe_name(name, content_type), content_type, self.clock(), wish)
        base = base_url(request)
        return reply({"upload_url": f"{base}/upload/{file.id}", "file_url": base + file_path(file.id, file.name)})

    async def put(self, request: Request) -> Response:
        """JavaScript, step two: the bytes, with no key: the unguessable URL is the permission. Twice is once."""
        file = self.store.file(request.path_params["id"])
        if file is None or not file.is_upload:
            return _not_found()
        await self._save(file, await body_of(request))
        return Response(status_code=200)

    async def _save(self, file: StoredFile, content: bytes) -> None:
        size, digest = await self.run_blocking(self.disk.write, file.id, content)
        self.store.shelf.keep(replace(file, size=size, sha256=digest), self.clock())

    async def part_with_token(self, request: Request) -> Response:
        """Python, step three of a large file: one of its parts, in any order and many at once."""
        if not self._has_token(request):
            return _no_token()
        return await self.part(request) if _is_sound(request) else _not_found()

    async def complete_with_token(self, request: Request) -> Response:
        """Python, the last step of a large file: all parts are there."""
        if not self._has_token(request):
            return _no_token()
        return await self.complete(request) if _is_sound(request) else _not_found()

    async def part(self, request: Request) -> Response:
        """A part of a large file. The one client reads its etag from the header, the other from the body."""
        file, number = self.store.file(request.path_params["id"]), request.path_params["number"]
        if file is None or not file.is_upload or file.size is not None:
            return _not_found()
        if not 1 <= number <= PARTS_MAX:
            return reply({"detail": f"A part's number is from 1 to {PARTS_MAX}"}, 400)
        digest = await self.run_blocking(self.disk.write_part, file.id, number, await body_of(request))
        self.store.shelf.keep_part(file.id, number, digest)
        return reply({"partNumber": number, "etag": f'"{digest}"'}, headers={"etag": f'"{digest}"'})

    async def complete(self, request: Request) -> Response:
        """Put the parts together by their numbers: the list comes in the order in which they arrived. Twice is once."""
        file = self.store.file(request.path_params["id"])
        if file is None or not file.is_upload:
            return _not_found()
        answer = {"access_url": base_url(request) + file_path(file.id, file.name), "uploaded": True}
        if file.size is not None:
            return reply(answer)
        there = self.store.shelf.parts(file.id)
        try:
            listed = json.loads(await body_of(request))["parts"]
            asked = {int(part["partNumber"]): str(part["etag"]).strip('"') for part in listed}
        except (ValueError, KeyError, TypeError):
            return reply({"detail": "parts is needed: a list of partNumber and etag"}, 422)
        wrong = [number for number, etag in asked.items() if there.get(number) != etag]
        if wrong or not asked:
            return reply({"detail": f"Invalid part: {wrong[0]}" if wrong else "There are no parts"}, 400)
        size, digest = await self.run_blocking(self.disk.join, file.id, sorted(asked))
        self.store.shelf.keep(replace(file, size=size, sha256=digest), self.clock())
        self.store.shelf.drop_parts(file.id)
        await self.run_blocking(self.disk.remove_parts, file.id, tuple(there))
        return reply(answer)

    async def serve(self, request: Request) -> Response:
        """A file, to anyone, whole or in part."""
        file = self.store.file(request.path_params["id"])
        if file is None or file.size is None or not file.is_there(self.clock()) or self._is_missing(file):
            return _not_found()
        if file.acl in (FORBID, HIDE) and not has_key(request):
            return reply({"detail": "Forbidden"}, 403) if file.acl == FORBID else _not_found()
        headers = {"etag": f'"{file.sha256}"', "accept-ranges": "bytes", "cache-control": "public, max-age=31536000"}
        if request.headers.get("if-none-match") == headers["etag"]:
            return Response(status_code=304, headers=headers)
        asked = request.headers.get("range") if request.headers.get("if-range") in (None, headers["etag"]) else None
        code, start, end = _part(asked, file.size)
        if code == 416:
            return Response(status_code=416, headers={**headers, "content-range": f"bytes */{file.size}"})
        if code == 206:
            headers["content-range"] = f"bytes {start}-{end - 1}/{file.size}"
        headers["content-length"] = str(end - start)
        if request.method == "HEAD":
            return Response(status_code=code, headers=headers, media_type=file.content_type)
        return StreamingResponse(self._pieces(file.id, start, end), code, headers, media_type=file.content_type)

    def _is_missing(self, file: StoredFile) -> bool:
        """Whether a fault hides a file that a request made (which is named after it)."""
        made_by = self.store.request(str(uuid.UUID(hex=file.id)), self.clock())
        return made_by is not None and self.luck.file_is_missing(made_by, self.clock())

    async def _pieces(self, file_id: str, start: int, end: int) -> AsyncIterator[bytes]:
        while start < end:
            piece = await self.run_blocking(self.disk.piece, file_id, start, end)
            if not piece:
                raise OSError(f"file {file_id} is shorter than it was")
            start += len(piece)
            yield piece


def _part(asked: str | None, size: int) -> tuple[int, int, int]:
    """What a Range header asks for: the answer's code, the first byte and the one after the last.

    A header that is not one sound range counts as none (RFC 9110, 14.2); one outside the file is 416.
    """
    found = _RANGE.fullmatch(asked or "")
    first, last = found.groups() if found else ("", "")
    if first and last and int(first) > int(last):
        first = last = ""
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
    elif last:
        start, end = max(size - int(last), 0), size
    else:
        return 200, 0, size
    return (206 if start < end else 416), start, end


def _safe_name(name: str | None, content_type: str) -> str:
    """The last part of a file name, bounded and printable; one is made up where none came."""
    plain = PurePosixPath(unquote(name or "").replace("\\", "/")).name
    plain = "".join(sign for sign in plain if sign.isprintable())[-NAME_CHARS_MAX:]
    return plain or "file" + (mimetypes.guess_extension(content_type.partition(";")[0]) or "")


def _is_sound(request: Request) -> bool:
    """Whether the upload is that of the file whose address the call is below."""
    return bool(request.path_params["upload_id"] == request.path_params["id"])


def _not_found() -> Response:
    return reply({"detail": "Not found"}, 404)


def _no_token() -> Response:
    return reply({"detail": "Invalid or expired token"}, 401)


def _no_key() -> Response:
    return reply({"detail": "Authentication is required"}, 401)


def _wrong_storage() -> Response:
    return reply({"detail": "Invalid storage type"}, 400)
