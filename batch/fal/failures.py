"""The failure table: what happens next after an error of httpx or an answer of fal. Pure; nothing is sent from here.

Two halves, one for calls that got no answer (`TRANSPORT_ERRORS`, every exception class that httpx has) and one for
answers (a table of status codes for each kind of call, then the few that depend on more than the code). Whatever a
submit meets that is not listed is in doubt; whatever any other call meets that is not listed is asked again: those are
free. The money rule above all others: RESUBMIT only where nothing was taken or fal says it charges nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

import httpx

from batch.errors import Action, CallFailed
from batch.fal.protocol import (
    BILLABLE_UNITS_HEADER,
    REQUEST_ID_HEADER,
    RETRYABLE_HEADERS,
    TIMEOUT_TYPE_HEADER,
    WEBHOOK_PARAMETER,
    Answer,
    Refusal,
    parsed_json,
    parsed_refusal,
    parsed_request_id,
    parsed_retry_after,
)

__all__ = [
    "ANSWERS",
    "RETRY_AFTER_S_MAX",
    "TRANSPORT_ERRORS",
    "TYPED_RESULTS",
    "Call",
    "Verdict",
    "answer_failure",
    "submit_doubt",
    "transport_failure",
]

RETRY_AFTER_S_MAX = 600.0
"""A server may ask for patience, not for a night: ten minutes, then we ask again."""


class Call(enum.Enum):
    """The kinds of calls to fal; the same answer means different things to each."""

    SUBMIT = "submit"
    STATUS = "status"
    RESULT = "result"
    CANCEL = "cancel"
    UPLOAD = "upload"
    HISTORY = "history"
    PRICES = "prices"
    MODELS = "models"
    KEYS = "webhook keys"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do next, and the short stable name of the reason."""

    action: Action
    cause: str


class _Sent(enum.Enum):
    """What an httpx error says about the request."""

    NO = "no"  # not a byte of it left
    MAYBE = "maybe"  # all of it may have arrived
    IMPOSSIBLE = "impossible"  # there is no way to send it: the URL is wrong, and stays wrong


TRANSPORT_ERRORS: Mapping[type[Exception], tuple[_Sent, str]] = {
    httpx.ConnectError: (_Sent.NO, "connect"),  # refused, no such host, TLS handshake
    httpx.ConnectTimeout: (_Sent.NO, "connect_timeout"),
    httpx.PoolTimeout: (_Sent.NO, "pool_timeout"),
    httpx.ProxyError: (_Sent.NO, "proxy"),  # the proxy refused the tunnel
    httpx.InvalidURL: (_Sent.IMPOSSIBLE, "bad_url"),
    httpx.UnsupportedProtocol: (_Sent.IMPOSSIBLE, "bad_url"),
    httpx.ReadError: (_Sent.MAYBE, "read"),
    httpx.ReadTimeout: (_Sent.MAYBE, "read_timeout"),
    httpx.WriteError: (_Sent.MAYBE, "write"),
    httpx.WriteTimeout: (_Sent.MAYBE, "write_timeout"),
    httpx.CloseError: (_Sent.MAYBE, "close"),
    httpx.RemoteProtocolError: (_Sent.MAYBE, "broken_answer"),
    httpx.LocalProtocolError: (_Sent.MAYBE, "broken_request"),  # may come after the head has left
    httpx.DecodingError: (_Sent.MAYBE, "broken_answer"),
    httpx.TooManyRedirects: (_Sent.MAYBE, "redirected"),
    httpx.HTTPStatusError: (_Sent.MAYBE, "broken_answer"),
    httpx.CookieConflict: (_Sent.MAYBE, "broken_answer"),
    httpx.StreamConsumed: (_Sent.MAYBE, "broken_answer"),
    httpx.StreamClosed: (_Sent.MAYBE, "broken_answer"),
    httpx.ResponseNotRead: (_Sent.MAYBE, "broken_answer"),
    httpx.RequestNotRead: (_Sent.MAYBE, "broken_request"),
    httpx.NetworkError: (_Sent.MAYBE, "network"),
    httpx.TimeoutException: (_Sent.MAYBE, "timeout"),
    httpx.ProtocolError: (_Sent.MAYBE, "protocol"),
    httpx.TransportError: (_Sent.MAYBE, "network"),
    httpx.RequestError: (_Sent.MAYBE, "network"),
    httpx.HTTPError: (_Sent.MAYBE, "network"),
    httpx.StreamError: (_Sent.MAYBE, "broken_answer"),
    TimeoutError: (_Sent.MAYBE, "deadline"),  # our own deadline over the whole call
    OSError: (_Sent.MAYBE, "network"),
}

_KEY = Verdict(Action.STOP_RUN, "key_refused")
_FORBIDDEN = Verdict(Action.STOP_RUN, "forbidden")
_LOCKED = Verdict(Action.STOP_RUN, "account_locked")
_UNKNOWN_ENDPOINT = Verdict(Action.STOP_RUN, "endpoint_unknown")
_REDIRECTED = Verdict(Action.STOP_RUN, "redirected")
_UNKNOWN_PATH = Verdict(Action.STOP_RUN, "path_unknown")
_NOT_FOUND_YET = Verdict(Action.REPEAT, "status_not_found")
_EXPIRED = Verdict(Action.EXPIRED, "result_gone")
_NO_HISTORY = Verdict(Action.STOP_RUN, "history_refused")
_NO_PRICES = Verdict(Action.STOP_RUN, "prices_refused")
_NO_MODELS = Verdict(Action.STOP_RUN, "models_refused")
_CLOSED = (400, 401, 402, 403, 404, 405, 407, 410, 422)  # of a platform call: asking again would not help

ANSWERS: Mapping[Call, Mapping[int, Verdict]] = {
    Call.SUBMIT: {
        # A redirect that names the resource's other place did not act on the request (RFC 9110, 15.4). 303 does the
        # opposite: the POST was done and its answer is elsewhere, so it is in doubt like all that is not listed.
        301: _REDIRECTED,
        302: _REDIRECTED,
        307: _REDIRECTED,
        308: _REDIRECTED,
        400: Verdict(Action.FAIL_JOB, "bad_request"),
        401: _KEY,
        402: _LOCKED,
        403: _FORBIDDEN,
        404: _UNKNOWN_ENDPOINT,
        405: Verdict(Action.STOP_RUN, "http_405"),
        407: Verdict(Action.STOP_RUN, "proxy_refused"),
        410: _UNKNOWN_ENDPOINT,
        411: Verdict(Action.STOP_RUN, "http_411"),
        413: Verdict(Action.FAIL_JOB, "too_large"),
        414: Verdict(Action.STOP_RUN, "http_414"),
        415: Verdict(Action.STOP_RUN, "http_415"),
        422: Verdict(Action.FAIL_JOB, "invalid_input"),
        429: Verdict(Action.RESUBMIT, "http_429"),
        431: Verdict(Action.STOP_RUN, "http_431"),
    },
    Call.STATUS: {
        401: _KEY,
        402: _LOCKED,
        403: _FORBIDDEN,
        404: _NOT_FOUND_YET,
        405: Verdict(Action.STOP_RUN, "http_405"),
        407: Verdict(Action.STOP_RUN, "proxy_refused"),
        410: _NOT_FOUND_YET,
    },
    Call.RESULT: {
        202: Verdict(Action.WAIT, "in_progress"),
        401: _KEY,
        402: _LOCKED,
        403: _FORBIDDEN,
        404: _EXPIRED,
        405: Verdict(Action.STOP_RUN, "http_405"),
        407: Verdict(Action.STOP_RUN, "proxy_refused"),
        408: Verdict(Action.REPEAT, "http_408"),
        409: Verdict(Action.REPEAT, "http_409"),
        410: _EXPIRED,
        425: Verdict(Action.REPEAT, "http_425"),
        429: Verdict(Action.REPEAT, "http_429"),
        499: Verdict(Action.CANCELLED, "client_cancelled"),
    },
    Call.CANCEL: {
        # What refuses the cancellation itself leaves the request as it is: it is followed to whatever end it has.
        400: Verdict(Action.WAIT, "http_400"),
        401: _KEY,
        402: _LOCKED,
        403: _FORBIDDEN,
        405: Verdict(Action.WAIT, "http_405"),
        407: Verdict(Action.STOP_RUN, "proxy_refused"),
        409: Verdict(Action.WAIT, "http_409"),
        422: Verdict(Action.WAIT, "http_422"),
        501: Verdict(Action.WAIT, "http_501"),
    },
    Call.UPLOAD: {
        400: Verdict(Action.FAIL_JOB, "upload_refused"),
        401: Verdict(Action.STOP_RUN, "upload_key_refused"),
        402: _LOCKED,
        403: Verdict(Action.STOP_RUN, "upload_forbidden"),
        404: Verdict(Action.STOP_RUN, "upload_unknown"),
        405: Verdict(Action.STOP_RUN, "upload_unknown"),
        407: Verdict(Action.STOP_RUN, "proxy_refused"),
        413: Verdict(Action.FAIL_JOB, "file_too_large"),
        415: Verdict(Action.FAIL_JOB, "upload_refused"),
        422: Verdict(Action.FAIL_JOB, "upload_refused"),
    },
    Call.HISTORY: dict.fromkeys(_CLOSED, _NO_HISTORY),
    Call.PRICES: dict.fromkeys(_CLOSED, _NO_PRICES),
    Call.MODELS: dict.fromkeys(_CLOSED, _NO_MODELS),
    Call.KEYS: {},
}
"""What a status code means where the code alone decides. Unlisted: a submit is in doubt, all else is asked again."""

TYPED_RESULTS: Mapping[str, Verdict] = {
    "client_cancelled": Verdict(Action.CANCELLED, "client_cancelled"),
    "client_disconnected": Verdict(Action.RESUBMIT, "client_disconnected"),
    "downstream_service_error": Verdict(Action.RESUBMIT, "downstream_service_error"),  # 400 or 500: pages disagree
    "downstream_service_unavailable": Verdict(Action.RESUBMIT, "downstream_service_unavailable"),
}
"""Types that decide whatever the status code of the result is."""

_GATEWAYS_SAY_TOO = frozenset({403, 404, 405})

_DEFAULT_ACTIONS = {Call.SUBMIT: Action.IN_DOUBT}


def transport_failure(call: Call, exc: Exception) -> Verdict:
    """What happens next after a call that ended in `exc`. KeyError for an exception that no HTTP call raises."""
    sent, cause = next(TRANSPORT_ERRORS[kind] for kind in _known(type(exc)))
    if sent is _Sent.IMPOSSIBLE:
        return Verdict(Action.STOP_RUN, cause)
    if call is not Call.SUBMIT:
        return Verdict(Action.REPEAT, cause)
    return Verdict(Action.RESUBMIT if sent is _Sent.NO else Action.IN_DOUBT, cause)


def answer_failure(call: Call, answer: Answer, *, now: float) -> CallFailed:
    """What happens next after an answer that is not the good one of that call, as the error to raise."""
    refusal = parsed_refusal(answer)
    verdict = _verdict(call, answer, refusal)
    is_billed, units = (None, None)
    if call is Call.RESULT and (verdict.action in _FINAL_WORDS or verdict == _UNKNOWN_PATH):
        units = (answer.headers.get(BILLABLE_UNITS_HEADER) or "").strip() or None
        is_billed = _is_billed(verdict, answer.status_code, units)
        if verdict.action is Action.RESUBMIT and is_billed:
            # Documented as free, yet this answer says it was charged: a new attempt is for the user to decide.
            verdict = Verdict(Action.FAIL_JOB, verdict.cause)
    return CallFailed(
        _message(call, answer, refusal),
        action=verdict.action,
        cause=verdict.cause,
        status_code=answer.status_code,
        request_id=_request_id(call, answer),
        retry_after_s=parsed_retry_after(answer.headers.get("retry-after"), now=now, at_most_s=RETRY_AFTER_S_MAX),
        is_billed=is_billed,
        billable_units=units,
        error_type=refusal.error_type,
        detail=refusal.detail,
    )


def submit_doubt(message: str, cause: str, answer: Answer | None) -> CallFailed:
    """A submit whose answer was not seen whole; what was seen of it may still name the request."""
    return CallFailed(
        message,
        action=Action.IN_DOUBT,
        cause=cause,
        status_code=answer.status_code if answer else None,
        request_id=_request_id(Call.SUBMIT, answer) if answer else None,
    )


_FINAL_WORDS = frozenset({Action.RESUBMIT, Action.FAIL_JOB, Action.CANCELLED})


def _known(kind: type[Exception]) -> list[type[Exception]]:
    """The class itself when it is listed, else the nearest of its bases that is."""
    return [base for base in kind.__mro__ if base in TRANSPORT_ERRORS] or [kind]


def _verdict(call: Call, answer: Answer, refusal: Refusal) -> Verdict:
    if call is Call.SUBMIT:
        return _submit_verdict(answer, refusal)
    if call is Call.RESULT:
        return _result_verdict(answer, refusal)
    if 200 <= answer.status_code < 300:
        return Verdict(Action.REPEAT, "bad_body")
    listed = _listed(call, answer.status_code)
    if answer.status_code in _GATEWAYS_SAY_TOO and answer.content.lstrip()[:1] == b"<":
        return Verdict(Action.REPEAT, f"http_{answer.status_code}")  # a page: fal answers in JSON
    return _LOCKED if listed == _FORBIDDEN and _says_locked(refusal) else listed


def _submit_verdict(answer: Answer, refusal: Refusal) -> Verdict:
    listed = _listed(Call.SUBMIT, answer.status_code)
    if not answer.is_whole:
        return Verdict(Action.IN_DOUBT, "broken_answer")
    if 200 <= answer.status_code < 300:
        return Verdict(Action.IN_DOUBT, "no_request_id")
    if listed == _FORBIDDEN and _says_locked(refusal):
        return _LOCKED
    if listed == _REDIRECTED and answer.headers.get(REQUEST_ID_HEADER):
        return Verdict(Action.IN_DOUBT, "redirected")  # fal itself gave it a name, so somebody looked at it
    if answer.status_code == 400 and (not refusal.is_json or "header" in refusal.message.lower()):
        return Verdict(Action.STOP_RUN, "bad_request")  # not the row's fault: it would be the same for every row
    if listed.action is Action.FAIL_JOB and WEBHOOK_PARAMETER in refusal.message:
        return Verdict(Action.STOP_RUN, "webhook_refused")  # the same
    return listed


def _result_verdict(answer: Answer, refusal: Refusal) -> Verdict:
    """A result's answer is the model's own, so its type counts for more than its code. What a gateway in between says
    (no JSON, an untyped 5xx) decides nothing: the result is there and is asked for again."""
    code = answer.status_code
    if code == 504 and answer.headers.get(TIMEOUT_TYPE_HEADER, "").strip().lower() == "user":
        return Verdict(Action.RESUBMIT, "start_timeout")
    if not answer.is_whole:
        return Verdict(Action.REPEAT, "broken_answer")
    if 200 <= code < 300 and code != 202:
        return Verdict(Action.REPEAT, "bad_body")
    if code >= 400 and (typed := TYPED_RESULTS.get(refusal.error_type or "")):
        return typed
    if code >= 500:
        return _server_verdict(answer, refusal)
    return _client_verdict(answer, refusal)


def _server_verdict(answer: Answer, refusal: Refusal) -> Verdict:
    if refusal.error_type is None:
        return Verdict(Action.REPEAT, f"http_{answer.status_code}")
    is_final = any(answer.headers.get(name, "").strip().lower() in ("0", "false", "no") for name in RETRYABLE_HEADERS)
    return Verdict(Action.FAIL_JOB if is_final else Action.RESUBMIT, refusal.error_type)


def _client_verdict(answer: Answer, refusal: Refusal) -> Verdict:
    code, words = answer.status_code, refusal.message.lower()
    listed = ANSWERS[Call.RESULT].get(code)
    if code == 400 and "in progress" in words:
        return Verdict(Action.WAIT, "in_progress")
    if code == 403 and _says_locked(refusal):
        return _LOCKED
    if code == 403 and refusal.has_typed_detail:
        return Verdict(Action.FAIL_JOB, refusal.error_type or "http_403")  # the model's own refusal of this input
    if code == 404 and words.startswith("path ") and "not found" in words:
        return _UNKNOWN_PATH
    if code in (404, 410) and answer.content.lstrip()[:1] == b"<":
        return Verdict(Action.REPEAT, f"http_{code}")  # a gateway's page: fal answers in JSON
    is_gateway = refusal.error_type is None and not refusal.is_json
    if listed is not None and not (code == 499 and is_gateway):
        return listed
    if code < 400 or is_gateway:
        return Verdict(Action.REPEAT, f"http_{code}")
    return Verdict(Action.FAIL_JOB, refusal.error_type or f"http_{code}")


def _listed(call: Call, status_code: int) -> Verdict:
    default = Verdict(_DEFAULT_ACTIONS.get(call, Action.REPEAT), f"http_{status_code}")
    return ANSWERS[call].get(status_code, default)


def _says_locked(refusal: Refusal) -> bool:
    words = refusal.message.lower()
    return "is locked" in words or "exhausted balance" in words or "top up" in words


def _is_billed(verdict: Verdict, status_code: int, units: str | None) -> bool | None:
    """Whether a verdict on an accepted job is charged: fal's own figure first, then what its pages say."""
    try:
        return float(units) > 0 if units is not None else _is_billed_by_page(verdict, status_code)
    except ValueError:
        return _is_billed_by_page(verdict, status_code)


def _is_billed_by_page(verdict: Verdict, status_code: int) -> bool | None:
    if verdict.action is Action.RESUBMIT or status_code >= 500 or status_code == 404:
        return False
    if status_code == 422:
        return True  # "may be", if compute was spent; a cap has to assume it was
    return None  # 499 while it ran, and codes that no page speaks of


def _request_id(call: Call, answer: Answer) -> str | None:
    from_header = parsed_request_id(answer.headers.get(REQUEST_ID_HEADER))
    if from_header or call is not Call.SUBMIT:
        return from_header
    body = parsed_json(answer.content)
    return parsed_request_id(body.get("request_id")) if isinstance(body, dict) else None


def _message(call: Call, answer: Answer, refusal: Refusal) -> str:
    said = f": {refusal.message}" if refusal.message else ""
    cut = "" if answer.is_whole else " (the answer broke off)"
    return f"{call.value}: fal answered {answer.status_code}{cut}{said}"
