"""What kind of text a file is, told from its bytes: encoding, damage, and what else it may be in disguise.

One look at the whole file before it is read, so that nothing is half read in the wrong encoding. Knows no rows and no
YAML; may import errors only.
"""

from __future__ import annotations

import codecs
import gzip
import io
import re
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TextIO, cast

from batch.errors import InputError

__all__ = ["TextFile", "is_damaged_text", "look_at", "undamaged"]

LINE_CHARS_MAX = 32_768
"""More is a long line: data URIs stand in it, and many of them at once would be large."""

BLOCK_BYTES = 1 << 20
HEAD_BYTES = 8192
UNPACKED_FROM_BYTES, UNPACKED_RATIO_MAX = 256 * 1024**2, 200  # text packs to a tenth, the same row again to a hundredth
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
_GOOD = re.compile("[^\0-\x7f\udc80-\udcff]")
_ESCAPED = re.compile("[\udc80-\udcff]")  # a byte that the encoding does not have, as `surrogateescape` reads it


def _bytes_class(codes: bytes) -> str:
    """A class of a regular expression for these bytes, as `surrogateescape` reads them."""
    return "[" + "".join(chr(0xDC00 + code) for code in codes) + "]"


# What Windows-1252 has beside letters, by where it stands: between words, round them, and behind them.
_BETWEEN = b"\x85\x92\x96\x97\xa0"
_ROUND = b"\x80\x82\x84\x8b\x91\x93\x94\x95\x99\x9b\xa1\xa7\xa9\xab\xae\xb0\xb7\xbb\xbf"
_BEHIND = frozenset(_BETWEEN + _ROUND) - {0x80}  # but no euro sign, which every sign of UTF-8 would show
_CAPITALS = frozenset(b"\x85\x91\x92\x93\x94\x96\x97")  # "MAÇÃ…": after 0xC3 as much a sign as a capital of UTF-8
_LETTERS = bytes([*range(0xC0, 0xD7), *range(0xD8, 0xF7), *range(0xF8, 0x100)]) + b"\x8a\x8c\x8e\x9a\x9c\x9e\x9f"
_NOT_IN_1252 = b"\x81\x8d\x8f\x90\x9d"
_RUN = re.compile(_bytes_class(bytes(set(range(0x80, 0x100)) - set(_BETWEEN))) + "+")
_WESTERN = re.compile(_bytes_class(_LETTERS) + "{1,2}")
_NO_SIGN = re.compile(_bytes_class(_LETTERS + _NOT_IN_1252))
_AT_ENDS = "".join(chr(0xDC00 + code) for code in _ROUND)
# Runs of letters beyond ASCII that Western people write all the same: their alphabets, and Turkish words.
_OWN_RUNS = tuple(frozenset(text.encode(name)) for text, name in (
    ("äöüßÄÖÜ", "cp1252"), ("åäöæøÅÄÖÆØ", "cp1252"), ("áéíóúüñÁÉÍÓÚÜÑ", "cp1252"), ("ışğüöçİŞĞÜÖÇ", "cp1254"),
))  # fmt: skip
_ACCENTED = re.compile(r"[\w'’&-]*[^\x00-\x7f][\w'’&-]*")
_SIGNATURES = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF"),
    (b"\x1f\x8b", "a gzip archive: add .gz to its name, or unpack it"),
    (b"PAR1", "a Parquet file: call it .parquet"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls): open it and save it as .xlsx"),
)
_WEB_PAGE = re.compile(rb"\s*<(!doctype html|html|head|table|meta)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFile:
    """A file of text. `encoding` is Python's name for it.

    `is_damaged` says that it holds NULs or bytes that the encoding does not have: such bytes are read as lone
    surrogates, for the reader to name the cells. `has_long_lines`: it has, or may have, some of more than
    LINE_CHARS_MAX. `note` is for the user, who may know better what the file is.
    """

    path: Path
    encoding: str
    is_damaged: bool
    has_long_lines: bool
    note: str | None = None

    def open(self) -> TextIO:
        """The file as text, its line ends as they are."""
        errors = "surrogateescape" if self.is_damaged else "strict"
        return io.TextIOWrapper(_binary(self.path), encoding=self.encoding, errors=errors, newline="")

    @property
    def words(self) -> str:
        """The encoding as a person names it."""
        return {"cp1252": "Windows-1252"}.get(self.encoding, self.encoding.upper().removesuffix("-SIG"))


def look_at(path: Path) -> TextFile:
    """What text is in the file. InputError when it is empty, or no text at all, with what it is and what to do.

    A file called `.gz` is unpacked as it is read; what is said here is about what is in it.
    """
    try:
        return _looked_at(path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise InputError(f"{path} is damaged or cut off: {exc}; pack it again") from exc


def _looked_at(path: Path) -> TextFile:
    with _binary(path) as file:
        head = file.read(HEAD_BYTES)
    encoding = _marked(head) or _of_nuls(head)
    if not head:
        raise InputError(f"{path} is empty")
    if encoding is None:
        _refuse_others(path, head)
        return _without_mark(path)
    try:
        has_long_lines, has_nul = _scanned(path, encoding)
    except UnicodeDecodeError as exc:
        if encoding == "utf-8-sig":
            return _damaged(path, encoding)
        raise InputError(f"{path} is damaged {encoding.upper()} text ({exc.reason}); save it as CSV UTF-8") from exc
    return TextFile(path=path, encoding=encoding, is_damaged=has_nul, has_long_lines=has_long_lines)


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
        return "an Excel workbook: call it .xlsx"
    if "content.xml" in names:
        return "a LibreOffice sheet: save it as CSV UTF-8"
    if any(name.endswith(".iwa") for name in names):
        return "a Numbers sheet: export it as CSV UTF-8"
    return "a zip archive: unpack it first"


def _without_mark(path: Path) -> TextFile:
    """UTF-8 where the bytes are; else what Windows programs write, unless most of it is UTF-8 all the same."""
    try:
        has_long_lines, has_nul = _scanned(path, "utf-8")
        return TextFile(path=path, encoding="utf-8", is_damaged=has_nul, has_long_lines=has_long_lines)
    except UnicodeDecodeError:
        pass
    seen = _told_apart(path)
    if seen.foreign > seen.western and seen.good <= seen.bad:
        what = "file as UTF-8" if path.suffix.lower() in (".yaml", ".yml") else "sheet as CSV UTF-8"
        raise InputError(
            f"{path} is not UTF-8, and does not look like Windows-1252 (Western European) either: {seen.example}; "
            f"save the {what}"
        )
    if seen.good:  # reading it all as Windows-1252 would spoil every good letter, be they few or many
        return _damaged(path, "utf-8")
    try:
        has_long_lines, has_nul = _scanned(path, "cp1252")
    except UnicodeDecodeError:
        return _damaged(path, "cp1252")
    note = f"{path.name} is not UTF-8; it was read as Windows-1252{_example(path)}. If that is wrong, save it as UTF-8."
    return TextFile(path=path, encoding="cp1252", is_damaged=has_nul, has_long_lines=has_long_lines, note=note)


@dataclass(slots=True)
class _Seen:
    """What speaks for which encoding, counted: letters that are UTF-8, bytes that are not, and of these the words of
    Western European and of other languages. `example` is the first of the others, in words."""

    good: int = 0
    bad: int = 0
    western: int = 0
    foreign: int = 0
    example: str = ""


def _told_apart(path: Path) -> _Seen:
    seen = _Seen()
    with io.TextIOWrapper(_binary(path), encoding="utf-8", errors="surrogateescape", newline="") as file:
        for number, line in enumerate(file, start=1):
            if line.isascii():
                continue
            bad = len(_ESCAPED.findall(line))
            seen.bad += bad
            seen.good += sum(map(_is_utf_8, _GOOD.findall(line)))
            if bad:
                _weigh(line, number, seen)
    return seen


def _is_utf_8(letter: str) -> bool:
    """Whether the bytes of a letter beyond ASCII can hardly be Windows-1252, where "é…”" is a letter of UTF-8 too."""
    lead, *rest = letter.encode()
    if lead in (0xC2, 0xC3):
        return lead == 0xC2 or rest[0] not in _CAPITALS
    return not _BEHIND.issuperset(rest)


def _weigh(line: str, number: int, seen: _Seen) -> None:
    """Western letters beyond ASCII stand among ASCII ones; those of other alphabets among themselves."""
    for run in _RUN.finditer(line):
        core = run[0].strip(_AT_ENDS)
        around = line[max(run.start() - 1, 0) : run.start()] + line[run.end() : run.end() + 1]
        is_inside = any(sign.isascii() and sign.isalpha() for sign in around)
        codes = bytes(ord(sign) - 0xDC00 for sign in core)
        if len(core) > 3 or (len(core) == 3 and not is_inside):
            if len(set(codes)) == 1 or not _NO_SIGN.search(core) or any(own.issuperset(codes) for own in _OWN_RUNS):
                continue
            seen.foreign += len(core) // 3
            if not seen.example:
                text = codes[:20].decode("cp1252", "replace")
                seen.example = f"line {number} holds the bytes {codes[:8].hex(' ').upper()}, there '{text}'"
        elif is_inside and _WESTERN.fullmatch(core):
            seen.western += 1


def _damaged(path: Path, encoding: str) -> TextFile:
    return TextFile(path=path, encoding=encoding, is_damaged=True, has_long_lines=path.stat().st_size > LINE_CHARS_MAX)


def _example(path: Path) -> str:
    """The first word that shows whether Windows-1252 was right."""
    with io.TextIOWrapper(_binary(path), encoding="cp1252", newline="") as file:
        while text := file.read(BLOCK_BYTES):
            if word := _ACCENTED.search(text):
                return f": its first accent is in '{word[0][:40]}'"
    return ""


def _is_packed(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _binary(path: Path) -> IO[bytes]:
    """The bytes of a file, those of a `.gz` unpacked."""
    return cast(IO[bytes], gzip.open(path, "rb")) if _is_packed(path) else path.open("rb")


def _scanned(path: Path, encoding: str) -> tuple[bool, bool]:
    """Whether there are long lines, and NULs. UnicodeDecodeError where the bytes are not of this encoding."""
    decoder = codecs.getincrementaldecoder(encoding)()
    has_long_lines = has_nul = False
    open_chars = 0  # of the line that goes on in the next block
    unpacked = 0
    with _binary(path) as file:
        size = path.stat().st_size
        while block := file.read(BLOCK_BYTES if _is_packed(path) else min(BLOCK_BYTES, size + 1)):
            unpacked += len(block)
            if unpacked > UNPACKED_FROM_BYTES and unpacked > UNPACKED_RATIO_MAX * size:
                raise InputError(f"{path} unpacks to more than any sheet of its size; it is not read")
            text = decoder.decode(block)
            has_nul = has_nul or "\0" in text
            open_chars = _last_line(text, open_chars)
            has_long_lines = has_long_lines or open_chars > LINE_CHARS_MAX
    decoder.decode(b"", final=True)
    return has_long_lines, has_nul


def _last_line(text: str, open_chars: int) -> int:
    """How long the line is that is open at the end of a text, before which it had `open_chars`; more than
    LINE_CHARS_MAX where any of its lines is. Most of a text of usual lines is not looked at."""
    at, room = 0, LINE_CHARS_MAX - open_chars
    while len(text) - at > room:
        end = text.rfind("\n", at, at + room + 1)
        if end < 0:
            return LINE_CHARS_MAX + 1
        at, room = end + 1, LINE_CHARS_MAX
    end = text.rfind("\n", at)
    return len(text) - end - 1 if end >= 0 else LINE_CHARS_MAX - room + len(text) - at
