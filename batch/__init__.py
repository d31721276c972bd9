"""fal-batch: run a spreadsheet of generations on the fal queue and pay for each of them once.

The folder list is the pipeline; README.md shows it as a picture. Nothing is imported here before it is asked for, so
that `fal-batch --help` stays quick; scripts start with `from batch import Queue` (docs/python.md).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from batch.api import (
        AccessRefused,
        AsyncHandle,
        AsyncQueue,
        CancelAnswer,
        ClientTimeout,
        Completed,
        Handle,
        InProgress,
        NoAnswer,
        NotSubmitted,
        Queue,
        Queued,
        QueueError,
        RequestCancelled,
        RequestFailed,
        ResultGone,
        RunSummary,
        Status,
        SubmitInDoubt,
        encode,
        encode_file,
    )

__all__ = [
    "AccessRefused",
    "AsyncHandle",
    "AsyncQueue",
    "CancelAnswer",
    "ClientTimeout",
    "Completed",
    "Handle",
    "InProgress",
    "NoAnswer",
    "NotSubmitted",
    "Queue",
    "QueueError",
    "Queued",
    "RequestCancelled",
    "RequestFailed",
    "ResultGone",
    "RunSummary",
    "Status",
    "SubmitInDoubt",
    "__version__",
    "encode",
    "encode_file",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Not a plain import: every module imports this one, and would by that stand above the top of the line.
    return getattr(importlib.import_module("batch.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
