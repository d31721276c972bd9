"""The input a model works with: its defaults and a seed filled in, and the files it names, fetched and looked at.

Of the project it imports only `endpoints` and its neighbours; Pillow and PyAV are imported when there is a picture. It
asks nobody outside: a rehearsal must not depend on the network, nor fetch what a stranger's sheet names.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import urllib.parse
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from batch.endpoints import Endpoint, Field, with_files
from batch.local.checking import Loc, refusal
from batch.local.shape import Size
from batch.local.store import Request

__all__ = ["Picture", "data_uri_bytes", "fetched", "filled", "shown_pictures"]

SEED_MAX = 2**31 - 1

_AT_THE_END = re.compile(r"(end|tail|last)_.*")  # end_image_url, tail_image_url, last_frame_url

_URL = re.compile(r"https?://|data:[a-z]", re.IGNORECASE)

Fetch = Callable[[Loc, str], Awaitable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A picture that the input sends: where in it, what stood there, the bytes, and its size as shown."""

    loc: Loc
    value: str
    content: bytes
    size: Size


def filled(endpoint: Endpoint, request: Request) -> dict[str, Any]:
    """The input with the endpoint's defaults and a seed: all that decides what comes out."""
    given = {name: value for name, value in request.input.items() if value is not None}
    defaults = {field.name: field.default for field in endpoint.fields if field.default is not None}
    if "duration" in given and "num_frames" not in given:
        defaults.pop("num_frames", None)  # of two ways to say how long, the one that was said counts
    wanted = {**defaults, **given}
    seed = wanted.get("seed")
    if not isinstance(seed, int) or seed < 0:
        # "Random", yet the same again when a crash makes this request run twice.
        wanted["seed"] = int.from_bytes(hashlib.sha256(request.id.encode()).digest()[:8]) % (SEED_MAX + 1)
    return wanted


def _named_files(endpoint: Endpoint, wanted: Mapping[str, Any]) -> list[tuple[Field, str]]:
    """Every file that an input names, at any depth, in the document's order: its field, and the URL."""
    found: list[tuple[Field, str]] = []

    def seen(field: Field, text: str) -> str:
        # Where a text need not be a file, only what looks like one is taken for it.
        if text and (_URL.match(text) or (field.is_file and not field.is_loose)):
            found.append((field, text))
        return text

    for field in endpoint.fields:
        if wanted.get(field.name) is not None:
            with_files(field, wanted[field.name], seen)
    return found


async def fetched(
    endpoint: Endpoint,
    wanted: Mapping[str, Any],
    *,
    fetch: Fetch,
    run_blocking: Callable[..., Awaitable[Any]],
) -> list[Picture]:
    """Fetch every file of an input, as fal does before the model starts; those that can be shown.

    Refused when one cannot be had, or is a picture that the model does not take.
    """
    from batch.local.images import BadImage, first_frame, picture_size

    pictures = []
    for field, url in _named_files(endpoint, wanted):
        loc = field.path
        content = await fetch(loc, url)
        if field.media not in ("image", "video"):
            continue
        try:
            limits = endpoint.image_limits
            if field.media == "video":
                content, limits = await run_blocking(first_frame, content), None
            size = await run_blocking(picture_size, content, limits, field.limits)
        except BadImage as exc:
            raise refusal(exc.kind, loc, exc.message, url, exc.context) from exc
        pictures.append(Picture(loc=loc, value=url, content=content, size=size))
    return pictures


def shown_pictures(pictures: list[Picture]) -> tuple[Picture, ...]:
    """The one to start from and, where the endpoint takes such a one, the one to end in."""
    last = [picture for picture in pictures if _AT_THE_END.fullmatch(str(picture.loc[0]))]
    others = [picture for picture in pictures if picture not in last]
    return (*others[:1], *last[:1])


def data_uri_bytes(loc: Loc, uri: str) -> bytes:
    """What a data URI holds; Refused when it is damaged."""
    head, _, data = uri.partition(",")
    raw = urllib.parse.unquote_to_bytes(data)
    if not head.lower().endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw, validate=False)
    except binascii.Error as exc:
        raise refusal("file_download_error", loc, f"The data URI is not base64: {exc}", uri[:64]) from exc
