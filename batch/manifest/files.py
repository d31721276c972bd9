"""File-valued cells: local files checked and hashed, URLs and data URIs checked by their form.

Reads local files only; nothing is fetched or uploaded here. A million rows on eight images read eight files.
"""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import io
import itertools
import mimetypes
import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urlsplit

from batch.endpoints import Endpoint, Field, Problem, check_image, check_size, shown
from batch.jobs import LocalFile, local_file_mark
from batch.manifest.same import Looked
from batch.manifest.text import is_damaged_text

__all__ = ["FileCell", "Files"]

FILES_REMEMBERED_MAX = 4096
HINTS_MAX = 20
LISTED_MAX = 10_000
HEAD_BYTES = 512

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters at least: C:\ is a path
_DATA_URI = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),(.*)", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_HOST = re.compile(r"//[\w.-]+\.\w|www\.", re.IGNORECASE)
_FILE_NAME = re.compile(
    r"\S+\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic|mp4|mov|webm|mkv|wav|mp3|ogg|flac|m4a|zip|tar|gz|json|txt|glb|gltf|obj"
    r"|safetensors|ckpt|pth?|bin|onnx|csv|pdf)",
    re.IGNORECASE,
)
_NO_PICTURES = frozenset({"", "text/html", "text/plain"})
_QUOTES = frozenset("\"'“”‘’")
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})
_SVG = re.compile(rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg\b", re.DOTALL)
_WEB_PAGE = re.compile(rb"\s*<(!doctype html|html|head)\b", re.IGNORECASE)
_DRAFT_PX = 64  # a JPEG is decoded at an eighth of its size where possible: enough to see that it is whole


@dataclass(frozen=True, slots=True)
class FileCell:
    """What a file-valued cell sends: a URL, a data URI, or the mark of a local file; the size in pixels where known."""

    value: Any
    local: LocalFile | None = None
    image_size: tuple[int, int] | None = None


class Files:
    """Reads the file cells of one endpoint, remembering what it has already seen."""

    def __init__(self, endpoint: Endpoint, looked: Looked) -> None:
        self._endpoint = endpoint
        self._looked = looked
        self._hints = 0
        self._seen: dict[tuple[str, Field, Sequence[Path]], FileCell | Problem] = {}

    def read(self, field: Field, text: str, folders: tuple[Path, ...]) -> FileCell | Problem:
        """What `text` means; a relative path is looked for in `folders`, in that order."""
        if text[:5].lower() == "data:":
            return self._data_uri(field, text)
        seen = self._seen.get((text, field, folders))
        if seen is None:
            if len(self._seen) >= FILES_REMEMBERED_MAX:
                self._seen.clear()
            seen = self._url_or_path(field, text, folders)
            self._seen[text, field, folders] = seen
        return seen

    def _url_or_path(self, field: Field, text: str, folders: tuple[Path, ...]) -> FileCell | Problem:
        scheme = _SCHEME.match(text)
        if field.is_loose and _is_no_file(text, scheme, folders):
            if scheme is None:  # a file of that name, made later, would be meant
                self._note(text, folders)
            return FileCell(text)
        if scheme is None:
            return self._path(field, text, folders)
        if scheme[1].lower() not in ("http", "https"):
            return _problem(field, text, "url", f"{shown(text)}: {_other_scheme(text, scheme[1].lower())}")
        if re.search(r"\s", text.strip()):
            fixed = re.sub(r"\s+", "%20", text.strip())
            return _problem(field, text, "url", f"{shown(text)} holds a blank; write it as %20: {shown(fixed)}")
        try:
            is_whole = bool(urlsplit(text).hostname)
        except ValueError:
            is_whole = False
        if not is_whole:
            return _problem(field, text, "url", f"{shown(text)} is not a whole URL; write https://host/path")
        return FileCell(text)

    def _path(self, field: Field, text: str, folders: tuple[Path, ...]) -> FileCell | Problem:
        try:
            tried = [folder / Path(text).expanduser() for folder in folders]
            slashed = _with_slashes(text, folders)
            spelt = (*tried, *slashed, *_with_accents(text, folders))
            for path in spelt:
                self._looked.at_file(path)
            path = next((path for path in spelt if path.exists()), tried[0])
            if not path.exists():
                hint = _odd_path(text) or self._looked_for(text, slashed or tried)
                return _problem(field, text, "file_missing", f"{shown(text)} does not exist{hint}")
            if path.is_dir():
                return _problem(field, text, "file_missing", f"{shown(text)} is a folder; name one file in it")
            if not path.is_file():
                return _problem(field, text, "file_missing", f"{shown(text)} is no ordinary file")
            return self._local(field, text, path)
        except (OSError, ValueError, RuntimeError) as exc:  # a name too long, a NUL in it, a ~ of nobody
            reason = getattr(exc, "strerror", None) or str(exc)
            return _problem(field, text, "file_missing", f"{shown(text)} cannot be read: {reason}")

    def _note(self, text: str, folders: Sequence[Path]) -> None:
        try:
            for folder in folders:
                self._looked.at_file(folder / Path(text).expanduser())
        except (OSError, ValueError, RuntimeError):
            pass  # no name that a file could have

    def _looked_for(self, text: str, tried: Sequence[Path]) -> str:
        places = " and ".join(dict.fromkeys(str(path.absolute()) for path in tried))
        return f"{self._hint(text, tried)}; looked for {places}"

    def _hint(self, text: str, tried: Sequence[Path]) -> str:
        """A file that may be meant, for the first few that are missing: listing and comparing is slow."""
        self._hints += 1
        if self._hints > HINTS_MAX:
            return ""
        below = _one_folder_down(tried) if Path(text).name == text else []
        if len(below) == 1:
            return f" (did you mean {shown(below[0])}?)"
        for path in tried:
            if path.parent.is_dir():
                names = {
                    other.name.casefold(): other.name for other in itertools.islice(path.parent.iterdir(), LISTED_MAX)
                }
                close = difflib.get_close_matches(path.name.casefold(), names, n=1)
                if close and is_damaged_text(names[close[0]]):
                    return " (the name of a file there is nearly this, and is not UTF-8: rename it)"
                if close:
                    return f" (did you mean '{names[close[0]]}'?)"
        if not any(path.parent.is_dir() for path in tried):
            return f", nor does the folder {shown(str(tried[0].parent.name))}"
        return ""

    def _local(self, field: Field, text: str, path: Path) -> FileCell | Problem:
        size_bytes = path.stat().st_size
        media_type = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        image_size: tuple[int, int] | None = None
        if size_bytes == 0:
            return _problem(field, text, "file_empty", f"{shown(text)} is an empty file")
        with path.open("rb") as file:
            if field.media == "image":
                looked = self._image(field, text, file, size_bytes)
                if isinstance(looked, Problem):
                    return looked
                media_type, image_size = looked[0] or media_type, looked[1]
                file.seek(0)
            wrong = check_size(field, size_bytes=size_bytes, side_px=image_size)
            if wrong:
                return _problem(field, text, "image_refused", f"{shown(text)}: {'; '.join(wrong)}")
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        local = LocalFile(sha256=digest, path=path.resolve(), size_bytes=size_bytes, media_type=media_type)
        return FileCell(local_file_mark(local), local, image_size)

    def _image(
        self, field: Field, text: str, file: BinaryIO, size_bytes: int
    ) -> tuple[str, tuple[int, int] | None] | Problem:
        looked = _measured(file)
        limits = self._endpoint.image_limits
        if looked is None:
            file.seek(0)
            media_type, looked = _unread(file.read(HEAD_BYTES))
            if limits is None and media_type not in _NO_PICTURES:
                return "", None  # nobody knows what the model can read: a PDF, an archive of pictures
            if limits is not None and media_type in limits.media_types:
                return media_type, None  # the model can read what we cannot
        if isinstance(looked, str):
            return _problem(field, text, "image_unreadable", f"{shown(text)} {looked}")
        media_type, (width, height) = looked
        wrong = check_image(self._endpoint, media_type=media_type, width=width, height=height, size_bytes=size_bytes)
        if wrong:
            return _problem(field, text, "image_refused", f"{shown(text)}: {'; '.join(wrong)}")
        return media_type, (width, height)

    def _data_uri(self, field: Field, text: str) -> FileCell | Problem:
        found = _DATA_URI.fullmatch(text)
        if found is None or not found[2].lower().endswith(";base64"):
            return _problem(field, text, "data_uri", "is not a data URI of the form data:image/png;base64,…")
        media_type = found[1]
        if not text.startswith("data:") or media_type != media_type.lower():
            return _problem(field, text, "data_uri", f"the model wants 'data:{media_type.lower()}' in lower case")
        if field.media == "image" and not media_type.startswith("image/"):
            return _problem(field, text, "data_uri", f"holds {media_type or 'no media type'}; an image is needed")
        try:
            content = base64.b64decode(found[3], validate=True)
        except binascii.Error as exc:
            return _problem(field, text, "data_uri", f"is not well-formed base64: {exc}")
        if field.media != "image":
            return FileCell(text)
        looked = self._image(field, text, io.BytesIO(content), len(content))
        return looked if isinstance(looked, Problem) else FileCell(text, None, looked[1])


def _is_no_file(text: str, scheme: re.Match[str] | None, folders: Sequence[Path]) -> bool:
    """Whether a text in a field that may hold something else than a file is that: `owner/model`, the name of a voice.

    A name that ends like a file and whose folder is there is a file that is missing.
    """
    if scheme is not None:
        return scheme[1].lower() not in ("http", "https", "file")
    try:
        paths = [folder / Path(text).expanduser() for folder in folders]
        is_near = any(path.exists() for path in paths) or (
            _FILE_NAME.fullmatch(text) is not None and any(path.parent.is_dir() for path in paths)
        )
    except (OSError, ValueError, RuntimeError):
        return True
    return not is_near


def _measured(file: BinaryIO) -> tuple[str, tuple[int, int]] | str | None:
    """Media type and size of an image, or what is wrong with it: its header is read, and whether it is whole.

    None where it is nothing that can be read as an image here.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            # A phone's MPO is a JPEG with a second picture behind it; every JPEG reader takes it.
            kind, size = "JPEG" if image.format == "MPO" else image.format or "", image.size
            image.verify()
        if kind == "JPEG":  # verify() looks at no JPEG's data
            file.seek(0)
            with Image.open(file) as image:
                image.draft(None, (_DRAFT_PX, _DRAFT_PX))
                image.load()
    except UnidentifiedImageError:
        return None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as exc:
        return f"is a damaged image: {exc}"
    return Image.MIME.get(kind, f"image/{kind.lower()}"), size


def _unread(head: bytes) -> tuple[str, str]:
    """The media type of what Pillow does not read, and words about it."""
    if not head:
        return "", "is empty"
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "image/heic", "is a HEIC picture, which the model does not take; save it as JPEG"
    if _SVG.match(head):
        return "image/svg+xml", "is an SVG drawing, which the model does not take; export it as PNG"
    if head.startswith(b"%PDF"):
        return "application/pdf", "is a PDF, not an image; export the page as PNG"
    if head.startswith(b"\0\0") and head[4:8] == b"ftyp":
        return "video/mp4", "is a video, not an image"
    if _WEB_PAGE.match(head):
        return "text/html", "is a web page, not an image; perhaps the download needed a login"
    if not any(code < 9 for code in head):
        return "text/plain", "is text, not an image"
    return "application/octet-stream", "is not an image that can be read"


def _one_folder_down(tried: Sequence[Path]) -> list[str]:
    """Where a file named without its folder may lie: its paths from the folders it was looked for in."""
    found: dict[str, None] = {}
    for path in tried:
        if path.parent.is_dir():
            for folder in itertools.islice(path.parent.iterdir(), LISTED_MAX):
                if not folder.name.startswith(".") and (folder / path.name).is_file():
                    found[f"{folder.name}/{path.name}"] = None
    return list(found)


def _with_slashes(text: str, folders: Sequence[Path]) -> list[Path]:
    """Where a path with backslashes leads on a system that knows only slashes: a sheet may come from Windows."""
    if os.sep != "/" or "\\" not in text:
        return []
    return [folder / Path(text.replace("\\", "/")).expanduser() for folder in folders]


def _with_accents(text: str, folders: Sequence[Path]) -> list[Path]:
    """The same letters in other bytes: a Mac, and what it packs, may write an accent as a sign of its own."""
    forms = dict.fromkeys(() if text.isascii() else (unicodedata.normalize(form, text) for form in ("NFC", "NFD")))
    return [folder / Path(form).expanduser() for form in forms if form != text for folder in folders]


def _odd_path(text: str) -> str:
    """What a path that leads nowhere seems to be instead, as the end of a message."""
    if text[:1] in _QUOTES and text[-1:] in _QUOTES:
        return ": leave out the quotation marks in the cell"
    if os.sep == "/" and _DRIVE.match(text):
        return ": it is a path of a Windows computer; write where the file is here, best relative to the sheet"
    if _HOST.match(text):
        return f": a web address begins with https:// (https://{text.lstrip('/')})"
    return ""


def _other_scheme(text: str, scheme: str) -> str:
    if scheme == "file":
        path = unquote(urlsplit(text).path)
        return f"write the path itself: {shown(path)}"
    return "fal fetches http and https only"


def _problem(field: Field, text: str, kind: str, message: str) -> Problem:
    return Problem(loc=field.path, kind=kind, message=message, input=text)
