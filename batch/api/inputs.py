"""What a script gives, checked before anything is sent: arguments, headers, files. Reads files, sends nothing."""

from __future__ import annotations

import base64
import hashlib
import io
import mimetypes
from collections.abc import Mapping, ValuesView
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from batch.errors import InputError
from batch.jobs import LocalFile

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "Priority",
    "encode",
    "encode_file",
    "encoded_image",
    "file_of",
    "paths_in",
    "read_file",
    "submit_headers",
    "suffix_of",
    "with_urls",
]

Priority = Literal["normal", "low"]

OWN_HEADERS = {
    "x-fal-queue-priority": "priority=",
    "x-fal-runner-hint": "hint=",
    "x-fal-request-timeout": "start_timeout=",
    "x-fal-request-start-timeout": "start_timeout=",
}
FIXED_HEADERS = {"authorization", "connection", "content-length", "content-type", "host", "transfer-encoding"}


def encode(data: bytes, content_type: str) -> str:
    """A data URI, for small files that need no upload. fal takes lower-case media types only."""
    return f"data:{content_type.lower()};base64,{base64.b64encode(data).decode()}"


def encode_file(path: str | Path) -> str:
    """The data URI of a file, its media type by its name."""
    return encode(read_file(Path(path)), _media_type(Path(path)))


def encoded_image(image: Image, format: str) -> bytes:
    """The bytes of a Pillow image."""
    out = io.BytesIO()
    image.save(out, format=format)
    return out.getvalue()


def read_file(path: Path) -> bytes:
    """A file's bytes. InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as exc:
        raise InputError(f"{path}: expected a file to upload, found none that can be read ({exc.strerror})") from exc


def suffix_of(media_type: str) -> str:
    """The ending that files of this type have, empty where none is known."""
    return mimetypes.guess_extension(media_type) or ""


def file_of(path: Path, data: bytes, media_type: str | None = None) -> LocalFile:
    """What an upload needs to know of these bytes."""
    sha256 = hashlib.sha256(data).hexdigest()
    return LocalFile(sha256=sha256, path=path, size_bytes=len(data), media_type=media_type or _media_type(path))


def paths_in(arguments: object) -> list[Path]:
    """Every Path in the arguments, each once, in order."""
    if isinstance(arguments, Path):
        return [arguments]
    children = arguments.values() if isinstance(arguments, Mapping) else arguments
    if not isinstance(children, (ValuesView, list, tuple)):
        return []
    return list(dict.fromkeys(path for child in children for path in paths_in(child)))


def with_urls(arguments: Any, urls: Mapping[Path, str]) -> Any:
    """The arguments with a URL in each Path's place."""
    if isinstance(arguments, Path):
        return urls[arguments]
    if isinstance(arguments, Mapping):
        return {name: with_urls(child, urls) for name, child in arguments.items()}
    return [with_urls(child, urls) for child in arguments] if isinstance(arguments, (list, tuple)) else arguments


def submit_headers(priority: Priority | None, hint: str | None, headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers that a submit gets beside this program's own. InputError for one that cannot be sent."""
    found = {name.lower(): value for name, value in (headers or {}).items()}
    for name in found:
        if name in OWN_HEADERS:
            raise InputError(f"headers: say {OWN_HEADERS[name]} instead of {name!r}")
        if name in FIXED_HEADERS:
            raise InputError(f"headers: {name!r} belongs to the connection and cannot be set")
    if priority is not None:
        if priority not in ("normal", "low"):
            raise InputError(f"priority: expected 'normal' or 'low', found {priority!r}")
        found["x-fal-queue-priority"] = priority
    if hint is not None:
        found["x-fal-runner-hint"] = hint
    for name, value in found.items():
        # A library below refuses these too, but only once the request may be on its way: then it is in doubt.
        is_name = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not is_name or not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise InputError(f"headers: {name!r} has a name or a value that no header can have")
    return found


def _media_type(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"
