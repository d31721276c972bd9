"""What kind of text a file is, told from its bytes: encoding, damage, and what else it may be in disguise.

One look at the whole file before it is read, so that nothing is half read in the wrong encoding. Knows no rows and no
YAML; may import errors only.
"""

from __future__ import annotations

import codecs
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from batch.errors import InputError

__all__ = ["TextFile", "is_damaged_text", "look_at", "undamaged"]

BLOCK_BYTES = 1 << 20
HEAD_BYTES = 8192
CONTROLS_MIN = 8  # so many control characters, and this share of them, are in no text; a stray one may be in any
CONTROLS_SHARE = 0.05

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes(code for code in range(32) if code not in b"\t\n\v\f\r\x1b\0")
_ESCAPED = re.compile("[\udc80-\udcff]")  # a byte that the encoding does not have, as `surrogateescape` reads it
_ACCENTED = re.compile(r"[\w'’&-]*[^\x00-\x7f][\w'’&-]*")
_SIGNATURES = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"PAR1", "a Parquet file: save it as CSV UTF-8"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls): save it as CSV UTF-8"),
)
_WEB_PAGE = re.compile(rb"\s*<(!doctype html|html|head|table|meta)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A file of text. `encoding` is Python's name for it.

    `is_damaged` says that it holds NULs or bytes that the encoding does not have: such bytes are read as lone
    surrogates, for the reader to name the cells. `line_chars_max` is its longest line. `note` is for the user, who may
    know better what the file is.
    """

    path: Path
    encoding: str
    is_damaged: bool
    line_chars_max: int
    note: str | None = None

    def open(self) -> TextIO:
        """The file as text, its line ends as they are."""
        errors = "surrogateescape" if self.is_damaged else "strict"
        return self.path.open(encoding=self.encoding, errors=errors, newline="")

    @property
    def words(self) -> str:
        """The encoding as a person names it."""
        return {"cp1252": "Windows-1252"}.get(self.encoding, self.encoding.upper().removesuffix("-SIG"))


def look_at(path: Path) -> TextFile:
    """What text is in the file. InputError when it is empty, or no text at all, with what it is and what to do."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    encoding = _marked(head) or _of_nuls(head)
    if not head:
        raise InputError(f"{path} is empty")
    if encoding is None:
        _refuse_others(path, head)
        return _without_mark(path)
    try:
        longest, has_nul = _scanned(path, encoding)
    except UnicodeDecodeError as exc:
        if encoding == "utf-8-sig":
            return _damaged(path, encoding)
        raise InputError(f"{path} is damaged {encoding.upper()} text ({exc.reason}); save it as CSV UTF-8") from exc
    return TextFile(path=path, encoding=encoding, is_damaged=has_nul, line_chars_max=longest)


def is_damaged_text(text: str) -> bool:
    """Whether a text out of a damaged file holds one of its bad bytes."""
    return "\0" in text or _ESCAPED.search(text) is not None


def undamaged(text: str, file: TextFile) -> tuple[str, str]:
    """A damaged text with its bad bytes replaced, and what the first of them is, in words."""
    bad = _ESCAPED.search(text)
    what = f"the byte 0x{ord(bad[0]) - 0xDC00:02X}, which is not {file.words}" if bad else "a NUL byte"
    return _ESCAPED.sub("\ufffd", text).replace("\0", "\ufffd"), what


def _marked(head: bytes) -> str | None:
    return next((name for mark, name in _BOMS if head.startswith(mark)), None)


def _of_nuls(head: bytes) -> str | None:
    """UTF-16 without a mark: every other byte of plain letters is NUL."""
    even, odd = head[0:200:2], head[1:200:2]
    if len(odd) < 4:
        return None
    if odd.count(0) > 0.6 * len(odd) and even.count(0) < 0.1 * len(even):
        return "utf-16-le"
    if even.count(0) > 0.6 * len(even) and odd.count(0) < 0.1 * len(odd):
        return "utf-16-be"
    return None


def _refuse_others(path: Path, head: bytes) -> None:
    """InputError for what is plainly no text, whatever it is called."""
    what = next((words for start, words in _SIGNATURES if head.startswith(start)), None)
    if head.startswith(b"PK\x03\x04"):
        what = _archived(path)
    elif _WEB_PAGE.match(head):
        what = "a web page, perhaps of a download that needed a login: save the sheet itself as CSV UTF-8"
    if what:
        raise InputError(f"{path} is called {path.suffix} but is {what}")
    controls = len(head) - len(head.translate(None, _CONTROLS + b"\0"))
    if controls >= CONTROLS_MIN and controls > CONTROLS_SHARE * len(head):
        raise InputError(f"{path} is not text; save the sheet as CSV UTF-8")


def _archived(path: Path) -> str:
    """What a zip archive is: the office programs' files are archives too."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        names = []
    if any(name.startswith("xl/") for name in names):
        return "an Excel workbook: save it as CSV UTF-8"
    if "content.xml" in names:
        return "a LibreOffice sheet: save it as CSV UTF-8"
    if any(name.endswith(".iwa") for name in names):
        return "a Numbers sheet: export it as CSV UTF-8"
    return "a zip archive: unpack it first"


def _without_mark(path: Path) -> TextFile:
    """UTF-8 where the bytes are; else what Windows programs write, unless most of it is UTF-8 all the same."""
    try:
        longest, has_nul = _scanned(path, "utf-8")
        return TextFile(path=path, encoding="utf-8", is_damaged=has_nul, line_chars_max=longest)
    except UnicodeDecodeError:
        pass
    good = bad = 0
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        while text := file.read(BLOCK_BYTES):
            here = len(_ESCAPED.findall(text))
            bad += here
            good += len(text) - len(text.encode("ascii", "ignore")) - here
    if good > bad:  # reading it all as Windows-1252 would spoil every good letter
        return _damaged(path, "utf-8")
    try:
        longest, has_nul = _scanned(path, "cp1252")
    except UnicodeDecodeError:
        return _damaged(path, "cp1252")
    note = f"{path.name} is not UTF-8; it was read as Windows-1252{_example(path)}. If that is wrong, save it as UTF-8."
    return TextFile(path=path, encoding="cp1252", is_damaged=has_nul, line_chars_max=longest, note=note)


def _damaged(path: Path, encoding: str) -> TextFile:
    return TextFile(path=path, encoding=encoding, is_damaged=True, line_chars_max=path.stat().st_size)


def _example(path: Path) -> str:
    """The first word that shows whether Windows-1252 was right."""
    with path.open(encoding="cp1252", newline="") as file:
        while text := file.read(BLOCK_BYTES):
            if word := _ACCENTED.search(text):
                return f": its first accent is in '{word[0][:40]}'"
    return ""


def _scanned(path: Path, encoding: str) -> tuple[int, bool]:
    """The longest line, and whether there are NULs. UnicodeDecodeError where the bytes are not of this encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    longest = tail = 0
    has_nul = False
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while block := file.read(min(BLOCK_BYTES, size + 1)):
            text = decoder.decode(block)
            has_nul = has_nul or "\0" in text
            first, *rest = map(len, text.split("\n"))
            longest = max(longest, tail + first, *rest)
            tail = rest[-1] if rest else tail + first
    decoder.decode(b"", final=True)
    return longest, has_nul
