"""api: the queue for people who script. `from batch import Queue`; docs/python.md is its page.

asynchronous.py has the calls, once, on either event loop, and following.py what they ask of fal about a request;
synchronous.py is the same for code without an event loop; campaign.py runs a whole manifest; updates.py and failures.py
are what comes back. It keeps no ledger: only `run` has one.
"""

from batch.api.asynchronous import AsyncHandle, AsyncQueue
from batch.api.campaign import RunSummary
from batch.api.failures import (
    AccessRefused,
    ClientTimeout,
    NoAnswer,
    NotSubmitted,
    QueueError,
    RequestCancelled,
    RequestFailed,
    ResultGone,
    SubmitInDoubt,
)
from batch.api.inputs import encode, encode_file
from batch.api.synchronous import Handle, Queue
from batch.api.updates import Completed, InProgress, Queued, Status
from batch.fal import CancelAnswer

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
    "encode",
    "encode_file",
]
