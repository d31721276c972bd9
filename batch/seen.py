"""Which texts were seen, and at which number first: a compact set for a million of them. Pure."""

from __future__ import annotations

from array import array

__all__ = ["Seen"]

_HASH_MASK = 2**64 - 1


class Seen:
    """Texts and the number each was seen at first: 16 to 64 bytes a text, where a dict takes ten times that.

    An open-addressing table of 64-bit hashes. Two different texts of one hash would be called equal: three chances in a
    hundred million among a million of them. Good for what is then refused or only counted, and for nothing else.
    """

    def __init__(self) -> None:
        self._size = 1 << 10
        self._count = 0
        self._hashes = array("Q", bytes(8 * self._size))
        self._numbers = array("Q", bytes(8 * self._size))

    def __len__(self) -> int:
        return self._count

    def add(self, text: str, number: int) -> int | None:
        """Remember `text` as seen at `number`; the number that had it first, or None when it is new."""
        wanted = hash(text) & _HASH_MASK or 1  # 0 marks an empty place
        place = self._place(wanted)
        if self._hashes[place]:
            return self._numbers[place]
        self._hashes[place], self._numbers[place] = wanted, number
        self._count += 1
        if self._count * 2 > self._size:
            self._grow()
        return None

    def _place(self, wanted: int) -> int:
        hashes, mask = self._hashes, self._size - 1
        place = wanted & mask
        while hashes[place] and hashes[place] != wanted:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        old = zip(self._hashes, self._numbers, strict=True)
        self._size *= 2
        self._hashes = array("Q", bytes(8 * self._size))
        self._numbers = array("Q", bytes(8 * self._size))
        for value, number in old:
            if value:
                place = self._place(value)
                self._hashes[place], self._numbers[place] = value, number
