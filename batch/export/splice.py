"""XML copied byte for byte while it is read, with other bytes in chosen places. Knows nothing of workbooks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO
from xml.parsers import expat

from batch.errors import InputError

__all__ = ["Splicer", "local_name"]

BLOCK_BYTES = 1 << 20


def local_name(name: str) -> str:
    """A name without its prefix."""
    return name.rpartition(":")[2]


class Splicer:
    """Reads XML and writes it. A subclass is told where elements start and end, and may write in the place of bytes
    that are not written yet. Offsets count from the beginning of what is read."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._raw = bytearray()
        self._offset = 0  # of the first byte in `_raw`
        self._parser = expat.ParserCreate()
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self.text
        self._parser.XmlDeclHandler = self._declared

    def splice(self, reading: IO[bytes], writing: IO[bytes]) -> None:
        """Copy all of it. InputError where it is no XML in UTF-8."""
        self._writing = writing
        try:
            while block := reading.read(BLOCK_BYTES):
                self._raw += block
                self._parser.Parse(block, False)
            self._parser.Parse(b"", True)
        except expat.ExpatError as exc:
            raise InputError(f"{self._what} is damaged ({exc}); open the workbook and save it again") from exc
        self.write_to(self._offset + len(self._raw))

    def started(self, name: str, attributes: Mapping[str, str], at: int) -> None:
        """An element, by its local name, whose opening tag stands at `at`."""

    def ended(self, name: str, at: int, after: int) -> None:
        """The end of an element: its closing tag stands from `at` to `after`; they are one where it has none."""

    def text(self, text: str) -> None:
        """Text between tags."""

    def write_to(self, offset: int) -> None:
        """Copy what stands before `offset`."""
        count = offset - self._offset
        self._writing.write(self._raw[:count])
        self.skip_to(offset)

    def skip_to(self, offset: int) -> None:
        """Leave out what stands before `offset`."""
        del self._raw[: offset - self._offset]
        self._offset = offset

    def write(self, content: bytes) -> None:
        self._writing.write(content)

    def raw(self, start: int, end: int) -> bytes:
        """What was read between two offsets and is not written yet."""
        return bytes(self._raw[start - self._offset : end - self._offset])

    def tag_end(self, at: int) -> int:
        """Where the tag ends that stands at `at`; none is asked for whose attributes hold free text, and so a `>`."""
        return self._offset + self._raw.index(b">", at - self._offset) + 1

    def _start(self, name: str, attributes: Mapping[str, str]) -> None:
        self.started(name, attributes, self._parser.CurrentByteIndex)

    def _end(self, name: str) -> None:
        at = self._parser.CurrentByteIndex
        closing = b"</" + name.encode()
        behind = at - self._offset + len(closing)
        # An element without a closing tag ends where something else begins, perhaps the end of one with a longer name.
        has_tag = self._raw.startswith(closing, at - self._offset) and self._raw[behind] in b"> "
        self.ended(name, at, self.tag_end(at) if has_tag else at)

    def _declared(self, version: str, encoding: str | None, standalone: int) -> None:
        if (encoding or "utf-8").lower() not in ("utf-8", "utf8"):
            raise InputError(f"{self._what} is written in {encoding}; open the workbook and save it again")
