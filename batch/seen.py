"""Which texts were seen, and at which number first: a compact set for a million of them. Pure."""

from __future__ import annotations

from array import array

__all__ = ["Seen"]

_HASH_MASK = 2**64 - 1


class Seen:
    """Texts and the number each was seen at first: some 20 bytes a text, where a dict takes five times that.

    64-bit hashes and numbers in the order they came, and an open-addressing table of their places. Two different texts
    of one hash would be called equal: three chances in a hundred million among a million of them. Good for what is then
    refused or only counted, and for nothing else.
    """

    def __init__(self) -> None:
        self._size = 1 << 10
        self._table = array("I", bytes(4 * self._size))  # 1 for the first hash; 0 marks an empty place
        self._hashes = array("Q")
        self._numbers = array("I")

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, text: str, number: int) -> int | None:
        """Remember `text` as seen at `number`; the number that had it first, or None when it is new."""
        table, hashes, mask = self._table, self._hashes, self._size - 1
        wanted = hash(text) & _HASH_MASK
        place = wanted & mask
        while found := table[place]:
            if hashes[found - 1] == wanted:
                return self._numbers[found - 1]
            place = (place + 1) & mask
        hashes.append(wanted)
        self._numbers.append(number)
        table[place] = len(hashes)
        if len(hashes) * 2 > self._size:
            self._grow()
        return None

    def _grow(self) -> None:
        self._size *= 2
        mask = self._size - 1
        self._table = table = array("I", bytes(4 * self._size))
        for number, wanted in enumerate(self._hashes, start=1):
            place = wanted & mask
            while table[place]:
                place = (place + 1) & mask
            table[place] = number
