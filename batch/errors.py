"""What can go wrong, sorted by what the caller does next. Imports nothing of the project.

    FalBatchError
    ├── InputError          fix your input; nothing was submitted                       exit 2
    │   ├── ManifestError   the same, with every bad cell of a sheet
    │   └── MissingPackage  an optional package is to be installed first
    ├── CallFailed          a call to fal gave no answer to go on with; its `action` says what next
    ├── DownloadFailed      a file could not be saved whole; `is_gone` when asking again is useless
    ├── Blocked             the run cannot go on now, the work is safe                   exit 4
    │   └── LedgerBusy      another fal-batch holds the ledger
    └── LedgerFault         the ledger was asked for something illegal: a fault of ours  exit 1

Anything else that escapes is a fault of ours too.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Action",
    "Blocked",
    "CallFailed",
    "Declined",
    "DownloadFailed",
    "FalBatchError",
    "InputError",
    "Issue",
    "LedgerBusy",
    "LedgerFault",
    "ManifestError",
    "MissingPackage",
]

ISSUES_PRINTED_MAX = 20  # the first twenty tell what kind of mistake it is; `--json` gives all


class Action(enum.Enum):
    """What happens next after a call to fal that did not simply succeed (the actions of the failure table)."""

    REPEAT = "repeat"  # the same free call again, after a pause: nothing changed at fal
    RESUBMIT = "resubmit"  # nothing was accepted or charged: a new submit is safe
    IN_DOUBT = "in_doubt"  # a submit was sent and its answer not seen: look before any new submit
    WAIT = "wait"  # not finished yet: go on asking for the status
    FAIL_JOB = "fail_job"  # fal's final word on this job
    CANCELLED = "cancelled"  # fal confirms the cancellation
    EXPIRED = "expired"  # fal no longer knows the result: only the history may
    STOP_RUN = "stop_run"  # account, key, endpoint: submit nothing more, rows stay untouched


class FalBatchError(Exception):
    """The root of everything that this program raises on purpose."""


class InputError(FalBatchError):
    """The command or a file the user wrote is wrong. Nothing was submitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """One thing wrong in a manifest.

    `address` is where, in the sheet's own words (`shots.csv:17`); `column` may be empty when the row or the file as a
    whole is meant; `kind` is a short stable name to count by (`one_of`, `file_missing`, …): `manifest.KINDS` has all.
    """

    address: str
    column: str
    message: str
    kind: str

    def __str__(self) -> str:
        where = f"{self.address} {self.column}".rstrip()
        return f"{where}: {self.message}"


class MissingPackage(InputError):
    """What was asked for needs an optional package: which, how to get it anywhere, and the way without it."""

    def __init__(self, what: str, package: str, instead: str = "") -> None:
        super().__init__(f"{what} {package}: pip install {package}{f', or {instead}' if instead else ''}")


class ManifestError(InputError):
    """Every issue of a manifest at once.

    A bounded number of them is kept: `count` may exceed `len(issues)`, and `by_kind` counts those beyond it too.
    `notes` say what else there is to know of the files, and may be the reason: hidden rows, merged cells, a
    guessed encoding; and what became of jobs that fal had all the same. `is_interrupted` when following those was.
    `undone` is what was not done for it.
    """

    def __init__(
        self,
        issues: tuple[Issue, ...],
        *,
        kinds: Mapping[str, int] | None = None,
        notes: Sequence[str] = (),
        is_interrupted: bool = False,
        undone: str = "submitted",
    ) -> None:
        assert issues, "a ManifestError has at least one issue"
        self.issues = issues
        self.notes = tuple(notes)
        self.is_interrupted = is_interrupted
        self.undone = undone
        self._kinds = Counter(issue.kind for issue in issues) if kinds is None else Counter(kinds)
        self.count = self._kinds.total()
        super().__init__(str(self))

    def with_notes(self, *notes: str, is_interrupted: bool = False, undone: str = "submitted") -> ManifestError:
        """The same mistakes, and more to say."""
        more = (*self.notes, *notes)
        return ManifestError(self.issues, kinds=self._kinds, notes=more, is_interrupted=is_interrupted, undone=undone)

    def by_kind(self) -> dict[str, int]:
        """How many issues there are of each kind, the most frequent first."""
        return dict(self._kinds.most_common())

    def __str__(self) -> str:
        lines = [str(issue) for issue in self.issues[:ISSUES_PRINTED_MAX]]
        if self.count > len(lines):
            lines.append(f"… and {self.count - len(lines)} more")
        return "\n".join(lines)


class CallFailed(FalBatchError):
    """A call to fal gave no answer to go on with.

    `action` is what to do next, `cause` a short stable name (`connect`, `account_locked`, …), `message` what a person
    reads. `request_id` is set when even a damaged answer carried one. `error_type` is the machine's word in the answer,
    `detail` its JSON as it came. `is_billed` belongs to a verdict on an
    accepted job: False when fal charges nothing, True when the price is due in full, None when nothing says (a job
    cancelled while it ran is to be counted as billed). `billable_units` is fal's own figure, as text. It never holds a
    key or a token.
    """

    def __init__(
        self,
        message: str,
        *,
        action: Action,
        cause: str,
        status_code: int | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        is_billed: bool | None = None,
        billable_units: str | None = None,
        error_type: str | None = None,
        detail: Any = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.action = action
        self.cause = cause
        self.status_code = status_code
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.is_billed = is_billed
        self.billable_units = billable_units
        self.error_type = error_type
        self.detail = detail


class DownloadFailed(FalBatchError):
    """A result file could not be saved whole. With `is_gone` the URL will not give it any more."""

    def __init__(self, message: str, *, is_gone: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.is_gone = is_gone


class Blocked(FalBatchError):
    """The run cannot go on now; what was accepted and saved is safe, and the same command goes on later."""


class LedgerBusy(Blocked):
    """Another fal-batch holds the ledger."""


class Declined(Exception):
    """The user did not want to spend it. Nothing was submitted."""


class LedgerFault(FalBatchError):
    """A transition that the table does not allow, or a row that is not there. A fault of ours."""
