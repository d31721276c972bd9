"""What a script can catch, sorted by what it does next.

    QueueError
    ├── NotSubmitted        fal took nothing: submitting again is safe (`is_temporary`: it may work in a while)
    ├── SubmitInDoubt       sent, and the answer not seen: look (`queue.find(error)`) before any new submit
    ├── RequestFailed       fal's final word on a request
    │   └── RequestCancelled  it was called off
    ├── ResultGone          fal does not know the request, or has the result no more
    ├── NoAnswer            a free call got no usable answer: the same call again later
    ├── AccessRefused       key, account or endpoint: the same call works once that is put right
    └── ClientTimeout       `client_timeout` is over (a TimeoutError too)

Which failure of a call is which, failures.py of `fal` has decided; here it only gets its name.
"""

from __future__ import annotations

from typing import Any

from batch.errors import Action, CallFailed, FalBatchError
from batch.jobs import Attempt

__all__ = [
    "AccessRefused",
    "ClientTimeout",
    "NoAnswer",
    "NotSubmitted",
    "QueueError",
    "RequestCancelled",
    "RequestFailed",
    "ResultGone",
    "SubmitInDoubt",
    "free_failure",
    "submit_failure",
]


class QueueError(FalBatchError):
    """A call came to nothing.

    `status_code`, `error_type` (the machine's word) and `detail` (text or a list, as JSON) are the answer's own where
    there was one; `cause` is this program's short name of the reason; `request_id` is None where it is not known.
    """

    def __init__(
        self, message: str, *, application: str, request_id: str | None = None, failure: CallFailed | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.application = application
        self.request_id = request_id
        self.cause = None if failure is None else failure.cause
        self.status_code = None if failure is None else failure.status_code
        self.error_type = None if failure is None else failure.error_type
        self.detail: Any = None if failure is None else failure.detail
        self.retry_after_s = None if failure is None else failure.retry_after_s


class NotSubmitted(QueueError):
    """Nothing was taken, and nothing is charged. With `is_temporary` the same call may work in a while (no connection,
    429); else the key, the account, the endpoint or the input has to be put right first."""

    is_temporary = False


class SubmitInDoubt(QueueError):
    """The POST was sent and its answer not seen: fal may have taken it, and may charge it.

    It is not sent again. `attempt` is what was sent and when; `request_id` is set when a damaged answer named one.
    """

    def __init__(self, message: str, *, attempt: Attempt, failure: CallFailed) -> None:
        super().__init__(message, application=attempt.endpoint, request_id=failure.request_id, failure=failure)
        self.attempt = attempt


class RequestFailed(QueueError):
    """fal's final word on a request that it took. `is_billed` is False where fal charges nothing, True where it charges
    the price, None where nothing says."""

    is_billed: bool | None = None


class RequestCancelled(RequestFailed):
    """It was called off, and has no result."""


class ResultGone(QueueError):
    """fal does not know this request, or keeps its result no more; its history does not have it either."""


class NoAnswer(QueueError):
    """No usable answer, for ten minutes where asking was worth it. The request is untouched: call again later."""


class AccessRefused(QueueError):
    """The key, the account or the endpoint was refused. What was submitted goes on at fal."""


class ClientTimeout(QueueError, TimeoutError):
    """The time that the caller gave is over. The request was called off as far as fal still could: `answer` is what fal
    said to that (None: it did not answer). One that was running may finish and be charged; then `result` has it."""

    def __init__(self, message: str, *, application: str, request_id: str, timeout: float, answer: str | None) -> None:
        super().__init__(message, application=application, request_id=request_id)
        self.timeout = timeout
        self.answer = answer


def submit_failure(failure: CallFailed, attempt: Attempt) -> QueueError:
    """What a submit came to, as its own error."""
    if failure.action is Action.IN_DOUBT:
        advice = "In doubt: fal may have taken it, so it is not sent again; look with queue.find(error)"
        return SubmitInDoubt(f"{failure.message}. {advice}", attempt=attempt, failure=failure)
    error = NotSubmitted(f"{failure.message}. Nothing was taken", application=attempt.endpoint, failure=failure)
    error.is_temporary = failure.action is Action.RESUBMIT
    return error


def free_failure(failure: CallFailed, application: str, request_id: str | None) -> QueueError:
    """What any other call came to."""
    kind = {
        Action.FAIL_JOB: RequestFailed,
        Action.RESUBMIT: RequestFailed,
        Action.CANCELLED: RequestCancelled,
        Action.EXPIRED: ResultGone,
        Action.STOP_RUN: AccessRefused,
    }.get(failure.action, NoAnswer)
    if failure.cause == "status_not_found":
        kind = ResultGone
    elif failure.cause == "path_unknown":  # the model's own 404: the endpoint has no such path
        kind = RequestFailed
    error = kind(failure.message, application=application, request_id=request_id or failure.request_id, failure=failure)
    if isinstance(error, RequestFailed):
        error.is_billed = failure.is_billed
    return error
