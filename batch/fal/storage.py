"""Uploads: a local file's bytes become a URL that fal can read. Free, and harmless to repeat.

The CDN token route of the official Python client: a token for the key, then one POST of the bytes with the token. The
token goes to the configured CDN host and nowhere else, whatever `base_url` its answer names. Which file was uploaded
already is the ledger's to know.
"""

from __future__ import annotations

import hashlib
import re

import anyio

from batch.errors import Action, CallFailed
from batch.fal.failures import Call, answer_failure
from batch.fal.protocol import FILE_NAME_HEADER, Answer, origin, parsed_json, parsed_time
from batch.fal.wire import Wire
from batch.jobs import LocalFile, Upload

__all__ = ["Storage"]

SINGLE_UPLOAD_BYTES_MAX = 100 * 1024 * 1024
"""Where the official client turns to multipart uploads. Images end at 30 MB for the models that say so."""

UPLOAD_DEADLINE_S = 600.0
TOKEN_MARGIN_S = 300.0
"""A token is not used in its last five minutes: an upload may take that long. Real ones last thirty days."""


class Storage:
    """Uploads over one wire. Keeps the CDN token until near its end."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._token: str | None = None
        self._token_ends_at = 0.0
        self._token_lock = anyio.Lock()

    async def upload(self, file: LocalFile, data: bytes) -> Upload:
        """Uploads `data`, the bytes of `file`. CallFailed when it did not work.

        FAIL_JOB with cause `file_changed` when the bytes are not those that the job asked for.
        """
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise _refused(f"{file.path} has changed since it was checked: plan again", "file_changed")
        if len(data) > SINGLE_UPLOAD_BYTES_MAX:
            raise _refused(
                f"{file.path} is larger than the {SINGLE_UPLOAD_BYTES_MAX} bytes of one upload", "file_too_large"
            )
        answer = await self._post(file, data, await self._fresh_token())
        if answer.status_code in (401, 403):
            # A token can die before its time; a new one is asked for once, and its refusal is final.
            self._token = None
            answer = await self._post(file, data, await self._fresh_token())
        body = parsed_json(answer.content) if answer.status_code in (200, 201) else None
        url = body.get("access_url") if isinstance(body, dict) else None
        if not isinstance(url, str) or origin(url) is None:
            raise self._failure(answer)
        return Upload(sha256=file.sha256, url=url, uploaded_at=self._wire.clock(), expires_at=None)

    async def _post(self, file: LocalFile, data: bytes, token: str) -> Answer:
        return await self._wire.ask(
            Call.UPLOAD,
            "POST",
            f"{self._wire.hosts.cdn}/files/upload",
            headers={"Content-Type": file.media_type, FILE_NAME_HEADER: _sent_name(file)},
            content=data,
            token=token,
            deadline_s=UPLOAD_DEADLINE_S,
        )

    async def _fresh_token(self) -> str:
        async with self._token_lock:  # twenty uploads that start together ask for one token
            if self._token is not None and self._wire.clock() < self._token_ends_at - TOKEN_MARGIN_S:
                return self._token
            answer = await self._wire.ask(
                Call.UPLOAD,
                "POST",
                f"{self._wire.hosts.rest}/storage/auth/token",
                params={"storage_type": "fal-cdn-v3"},
                headers={"Content-Type": "application/json"},
                content=b"{}",
            )
            body = parsed_json(answer.content) if answer.status_code in (200, 201) else None
            token = body.get("token") if isinstance(body, dict) else None
            if not isinstance(token, str) or not token.isascii() or not token.isprintable() or not token.strip():
                raise self._failure(answer)
            # Without a readable end it serves this one upload.
            self._token_ends_at = parsed_time(body.get("expires_at") if isinstance(body, dict) else None) or 0.0
            self._token = token
            return token

    def _failure(self, answer: Answer) -> CallFailed:
        failure = answer_failure(Call.UPLOAD, answer, now=self._wire.clock())
        if self._token:
            failure.message = failure.message.replace(self._token, "[token]")
        return self._wire.safe_failure(failure)


def _sent_name(file: LocalFile) -> str:
    """A name for fal's URL: the content's, with the file's own ending. The user's file names stay at home, and a header
    takes ASCII only."""
    suffix = file.path.suffix.lower()
    return file.sha256[:16] + (suffix if re.fullmatch(r"\.[a-z0-9]{1,8}", suffix) else "")


def _refused(message: str, cause: str) -> CallFailed:
    return CallFailed(f"upload: {message}", action=Action.FAIL_JOB, cause=cause)
