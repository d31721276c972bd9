"""The issues of one reading, collected: a bounded number kept, all of them counted."""

from __future__ import annotations

from batch.errors import Issue, ManifestError

__all__ = ["ISSUES_KEPT_MAX", "Report"]

ISSUES_KEPT_MAX = 10_000  # a million bad rows are one mistake; memory stays flat


class Report:
    """Collects issues; `raise_if_any` ends the reading with all of them."""

    def __init__(self) -> None:
        self.count = 0
        self._kept: dict[Issue, None] = {}

    def add(self, address: str, column: str, message: str, kind: str) -> None:
        """One more thing that is wrong. The same again is nothing new: a cell is read once for every combination."""
        issue = Issue(address=address, column=column, message=message, kind=kind)
        if issue in self._kept:
            return
        self.count += 1
        if len(self._kept) < ISSUES_KEPT_MAX:
            self._kept[issue] = None

    def raise_if_any(self) -> None:
        """ManifestError with everything found so far, if anything was."""
        if self.count:
            raise ManifestError(tuple(self._kept), count=self.count)
