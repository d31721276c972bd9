"""What kind of file some bytes are, and whether the file is complete by its own account. No decoding, no network.

A download of the right length can still be a file that was cut before it was uploaded. Every container says where it
ends: the boxes of an mp4, the chunks of a PNG, the markers of a JPEG. Kinds that say nothing pass when they are not
empty, and so do bytes of no kind known here: they were paid for, and their length is the server's. Only what is plainly
a server's own words in place of a picture is no file.
"""

from __future__ import annotations

import json
import mmap
import os
import re
import struct
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import IO

from batch.errors import DownloadFailed
from batch.jobs import FileRef

__all__ = ["HEAD_BYTES", "kind_of", "suffix_for", "verify"]

HEAD_BYTES = 32
"""The beginning of a file that is enough to know it by."""

WORDS_BYTES_MAX = 64 * 1024  # of an error in JSON; a mesh in JSON is larger, and has no such names
FEW_WORDS_BYTES = 256  # less than the smallest file of any kind that is checked, and plain text

ZIP_TAIL_BYTES = 22 + 0xFFFF  # its directory's end, and the longest comment
BOXES_MAX = 100_000  # at the top level; a fragmented film of a night has two for each second
BOX_TYPES_FIRST = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # QuickTime need not begin with ftyp
STILL_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1")  # pictures in an mp4's clothes

_SUFFIX_OF_KIND = {
    "mp4": ".mp4",
    "mov": ".mov",
    "m4a": ".m4a",
    "avif": ".avif",
    "heic": ".heic",
    "png": ".png",
    "bmp": ".bmp",
    "tiff": ".tiff",
    "jpeg": ".jpg",
    "gif": ".gif",
    "webp": ".webp",
    "wav": ".wav",
    "avi": ".avi",
    "webm": ".webm",
    "flac": ".flac",
    "ogg": ".ogg",
    "mp3": ".mp3",
    "pdf": ".pdf",
    "aac": ".aac",
    "glb": ".glb",
    "zip": ".zip",
    "gzip": ".gz",
    "jxl": ".jxl",
}
_SUFFIX_OF_TYPE = {
    "video/mp4": ".mp4",
    "video/quicktime": ".mov",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "video/x-msvideo": ".avi",
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/jpg": ".jpg",
    "image/gif": ".gif",
    "image/webp": ".webp",
    "image/avif": ".avif",
    "image/svg+xml": ".svg",
    "image/bmp": ".bmp",
    "image/tiff": ".tiff",
    "audio/mpeg": ".mp3",
    "audio/mp3": ".mp3",
    "audio/mp4": ".m4a",
    "audio/wav": ".wav",
    "audio/x-wav": ".wav",
    "audio/ogg": ".ogg",
    "audio/flac": ".flac",
    "application/json": ".json",
    "application/pdf": ".pdf",
    "application/zip": ".zip",
    "application/x-zip-compressed": ".zip",
    "application/gzip": ".gz",
    "application/x-tar": ".tar",
    "application/x-subrip": ".srt",
    "audio/aac": ".aac",
    "audio/opus": ".opus",
    "audio/x-flac": ".flac",
    "model/gltf-binary": ".glb",
    "model/gltf+json": ".gltf",
    "model/obj": ".obj",
    "model/stl": ".stl",
    "model/vnd.usdz+zip": ".usdz",
    "text/csv": ".csv",
    "text/html": ".html",
    "text/markdown": ".md",
    "text/vtt": ".vtt",
    "text/plain": ".txt",
}
_CHECKED_TYPES = {
    "video/mp4": "mp4",
    "video/quicktime": "mov",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
    "audio/wav": "wav",
    "audio/x-wav": "wav",
    "application/zip": "zip",
    "model/gltf-binary": "glb",
}
_CHECKED_SUFFIXES = {
    ".mp4": "mp4",
    ".mov": "mov",
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".gif": "gif",
    ".webp": "webp",
    ".wav": "wav",
    ".zip": "zip",
    ".glb": "glb",
}


def kind_of(head: bytes) -> str | None:
    """The kind of file that begins with `head` (32 bytes are enough), None when nothing tells."""
    if head[4:8] == b"ftyp":
        return _kind_of_brand(head[8:12])
    if head[:4] in (b"RIFF", b"RF64") and len(head) >= 12:  # RF64: the same, for more than 4 GiB
        return {b"WEBP": "webp", b"WAVE": "wav", b"AVI ": "avi"}.get(head[8:12])
    for signature, kind in (
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff", "jpeg"),
        (b"GIF8", "gif"),
        (b"\x1aE\xdf\xa3", "webm"),
        (b"fLaC", "flac"),
        (b"OggS", "ogg"),
        (b"ID3", "mp3"),
        (b"%PDF-", "pdf"),
        (b"glTF", "glb"),
        (b"PK\x03\x04", "zip"),
        (b"PK\x05\x06", "zip"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
        (b"BM", "bmp"),
        (b"II*\x00", "tiff"),
        (b"MM\x00*", "tiff"),
    ):
        if head.startswith(signature):
            return kind
    if head[4:8] in BOX_TYPES_FIRST:
        return "mov"
    if len(head) > 2 and head[0] == 0xFF and head[1] in (0xFB, 0xF3, 0xF2, 0xFA):
        return "mp3"
    if len(head) > 2 and head[0] == 0xFF and head[1] in (0xF1, 0xF9):
        return "aac"
    return None


def suffix_for(ref: FileRef, head: bytes) -> str:
    """The ending of a file's name: by its first bytes, else by what fal calls it, else by its URL, else `.bin`."""
    kind = kind_of(head)
    of_type = _SUFFIX_OF_TYPE.get((ref.content_type or "").split(";")[0].strip().lower())
    named = _url_suffix(ref.file_name or "") or _url_suffix(ref.url)
    if kind == "webm" and ".mkv" in (of_type, named):
        return ".mkv"  # one container, told apart further in than the head reaches
    if kind == "zip":
        return named if named not in ("", ".bin") else of_type or ".zip"  # .usdz, .npz and .docx are archives too
    if kind is not None:
        return _SUFFIX_OF_KIND[kind]
    if of_type in _CHECKED_SUFFIXES and named != ".bin":
        return named or of_type  # it is not what its type says, so its name knows more
    if of_type in (None, ".txt"):  # plain text is what subtitles and the like are served as
        return named or of_type or ".bin"
    return of_type


def verify(path: Path, hint: str | None = None) -> bytes:
    """How the file begins (HEAD_BYTES at most); DownloadFailed unless it is complete by its own account.

    `hint` is a media type or a URL: where a picture should be, a web page or an error in words is refused. What it
    really is counts for the rest.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise DownloadFailed(f"{path.name}: the file is empty")
        head = file.read(HEAD_BYTES)
        kind, expected = kind_of(head), _expected_kind(hint)
        words = _server_words(file, size) if kind is None and expected is not None else None
        if words is not None:
            raise DownloadFailed(f"{path.name}: expected {expected}, found {words} that begins with {head[:12]!r}")
        check = _CHECKS.get(kind or "")
        problem = check(file, size) if check else None
    if problem:
        raise DownloadFailed(f"{path.name}: not a whole {kind}: {problem}")
    return head


def _server_words(file: IO[bytes], size: int) -> str | None:
    """What a server put in a file's place, in its own words; None where it may be a file of a kind not known here."""
    file.seek(0)
    begin = file.read(WORDS_BYTES_MAX)
    if not begin.strip(b"\0"):
        return "nothing but zeros" if len(begin) == size else None
    if re.match(rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?<(!doctype html|html|head|body|error)\b", begin, re.IGNORECASE):
        return "a web page"
    if size > len(begin):
        return None
    try:
        said = json.loads(begin)
    except ValueError:
        is_text = size <= FEW_WORDS_BYTES and begin.isascii() and begin.decode().strip().isprintable()
        return "a few words" if is_text else None
    is_error = not isinstance(said, dict) or bool({"detail", "error", "errors", "message"} & set(said))
    return "JSON" if is_error else None


def _expected_kind(hint: str | None) -> str | None:
    if not hint:
        return None
    media_type = hint.split(";")[0].strip().lower()
    return _CHECKED_TYPES.get(media_type) or _CHECKED_SUFFIXES.get(_url_suffix(hint))


def _url_suffix(url: str) -> str:
    if url[:5].lower() == "data:":
        return ""
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    found = re.search(r"\.[A-Za-z0-9]{1,12}$", name)
    return found[0].lower() if found else ""


def _kind_of_brand(brand: bytes) -> str:
    if brand == b"qt  ":
        return "mov"
    if brand in (b"M4A ", b"M4B "):
        return "m4a"
    if brand in STILL_BRANDS:
        return "avif" if brand.startswith(b"avi") else "heic"
    return "mp4"


def _boxes_problem(file: IO[bytes], size: int) -> str | None:
    """The top-level boxes, one after the other, have to end where the file ends. Behind a film that is whole there may
    be padding or a trailer: the server says that it belongs to the file, and what was paid for is there."""
    seen: set[bytes] = set()
    position, brand = 0, b""
    for _ in range(BOXES_MAX):
        if position == size:
            return _missing_box(seen, brand)
        file.seek(position)
        header = file.read(16)
        is_film = brand not in STILL_BRANDS and not _missing_box(seen, brand)
        if len(header) < 8:
            return None if is_film else f"{size - position} bytes after the last box"
        length, name = struct.unpack(">I4s", header[:8])
        least = 8
        if length == 1:
            if len(header) < 16:
                return "it ends inside a box's header"
            (length,), least = struct.unpack(">Q", header[8:16]), 16
        elif length == 0 and name == b"mdat":
            length = size - position  # "to the end of the file": written by a recorder that never went back
        if is_film and name not in _MEDIA_BOXES and (length < least or position + length > size):
            return None
        if length < least:
            return f"box {name!r} at {position} is {length} bytes long"
        if position + length > size:
            return f"box {name!r} needs {position + length} bytes, the file has {size}"
        if name == b"ftyp":
            brand = header[8:12]
        seen.add(name)
        position += length
    return f"more than {BOXES_MAX} boxes"


_MEDIA_BOXES = frozenset({b"mdat", b"moof", b"moov"})


def _missing_box(seen: set[bytes], brand: bytes) -> str | None:
    if brand in STILL_BRANDS:
        return None if b"meta" in seen or b"moov" in seen else "no meta box"
    missing = [name.decode() for name in (b"moov", b"mdat") if name not in seen]
    return f"no {' and no '.join(missing)} box" if missing else None


def _png_problem(file: IO[bytes], size: int) -> str | None:
    position = 8
    while position + 12 <= size:
        file.seek(position)
        length, name = struct.unpack(">I4s", file.read(8))
        position += 12 + length
        if name == b"IEND":
            return None if position <= size else "it ends inside IEND"
    return "it ends before IEND"


def _jpeg_problem(file: IO[bytes], size: int) -> str | None:
    """Segments up to the first scan, then the end marker: inside a scan 0xFF is always followed by something else.
    The last two bytes alone would refuse files with padding, and a search of the whole would find a thumbnail's."""
    position = 2
    while True:
        file.seek(position)
        header = file.read(4)
        if len(header) < 4 or header[0] != 0xFF:
            return "it ends before the picture"
        if header[1] == 0xFF:
            position += 1  # fill bytes may stand before a marker
            continue
        position += 2 + struct.unpack(">H", header[2:4])[0]
        if header[1] == 0xDA:
            break
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return None if content.find(b"\xff\xd9", position) >= 0 else "it ends inside the picture"


def _riff_problem(file: IO[bytes], size: int) -> str | None:
    file.seek(4)
    (length,) = struct.unpack("<I", file.read(4))
    if length in (0, 0xFFFFFFFF):
        return None  # written to a pipe, its length never filled in
    return None if length + 8 <= size else f"it needs {length + 8} bytes, the file has {size}"


def _gif_problem(file: IO[bytes], size: int) -> str | None:
    """Blocks up to the trailer, whatever stands behind it: some programs put their own there."""
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            position = 13 + _gif_colours(content[10])
            while (kind := content[position]) != 0x3B:
                if kind not in (0x21, 0x2C):
                    return f"no block begins at {position}"
                position += 2 if kind == 0x21 else 11 + _gif_colours(content[position + 9])
                while (length := content[position]) != 0:
                    position += 1 + length
                position += 1
        except IndexError:
            return "it ends before its trailer"
    return None


def _gif_colours(packed: int) -> int:
    """The bytes of a colour table."""
    return 3 << (packed & 7) + 1 if packed & 0x80 else 0


def _glb_problem(file: IO[bytes], size: int) -> str | None:
    file.seek(8)
    length = file.read(4)
    if len(length) < 4:
        return "it ends inside its header"
    (stated,) = struct.unpack("<I", length)
    return None if stated <= size else f"it needs {stated} bytes, the file has {size}"


def _zip_problem(file: IO[bytes], size: int) -> str | None:
    """An archive's directory stands at its end, perhaps with a comment behind it."""
    file.seek(max(0, size - ZIP_TAIL_BYTES))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    return None if 0 <= at <= len(tail) - 22 else "no directory at its end"


_CHECKS: dict[str, Callable[[IO[bytes], int], str | None]] = {
    "mp4": _boxes_problem,
    "mov": _boxes_problem,
    "m4a": _boxes_problem,
    "avif": _boxes_problem,
    "heic": _boxes_problem,
    "png": _png_problem,
    "jpeg": _jpeg_problem,
    "gif": _gif_problem,
    "webp": _riff_problem,
    "wav": _riff_problem,
    "avi": _riff_problem,
    "glb": _glb_problem,
    "zip": _zip_problem,
}
