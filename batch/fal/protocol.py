"""The words of fal's queue protocol: hosts, headers, URLs, and what an answer's text says. No I/O.

Both ends use it: the client that speaks to fal, and the local queue that stands in for fal. What the client then *does*
about an answer is not here (failures.py), nor is any sending. Parsers are liberal in what they read: fal's own pages
disagree in places, and a field that is missing or of another type is no reason to lose a paid job.
"""

from __future__ import annotations

import datetime
import email.utils
import enum
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import httpx

from batch.jobs import FalStatus, Outcome, Status, Ticket

__all__ = [
    "BILLABLE_UNITS_HEADER",
    "DISABLE_FALLBACK_HEADERS",
    "ERROR_TYPE_HEADER",
    "FILE_NAME_HEADER",
    "NAMESPACES",
    "REQUEST_ID_HEADER",
    "RETRYABLE_HEADERS",
    "START_TIMEOUT_HEADERS",
    "STILL_IN_PROGRESS",
    "TIMEOUT_TYPE_HEADER",
    "WEBHOOK_PARAMETER",
    "Answer",
    "CancelAnswer",
    "Hosts",
    "Refusal",
    "app_id",
    "header_seconds",
    "iso_time",
    "origin",
    "parsed_cancel",
    "parsed_http_date",
    "parsed_json",
    "parsed_outcome",
    "parsed_refusal",
    "parsed_request_id",
    "parsed_retry_after",
    "parsed_status",
    "parsed_time",
    "submit_url",
    "ticket",
    "ticket_from",
]

START_TIMEOUT_HEADERS = ("X-Fal-Request-Start-Timeout", "X-Fal-Request-Timeout")
"""The newest name and the alias that both official clients still send; with the same value in both, whichever is read
bounds the start."""

DISABLE_FALLBACK_HEADERS = ("x-app-fal-disable-fallback", "x-fal-disable-fallbacks")
"""Two pages of fal name it differently, so both are sent."""

REQUEST_ID_HEADER = "x-fal-request-id"
ERROR_TYPE_HEADER = "x-fal-error-type"
TIMEOUT_TYPE_HEADER = "x-fal-request-timeout-type"
BILLABLE_UNITS_HEADER = "x-fal-billable-units"
RETRYABLE_HEADERS = ("x-fal-retryable", "x-fal-needs-retry")
FILE_NAME_HEADER = "X-Fal-File-Name"
WEBHOOK_PARAMETER = "fal_webhook"  # of a submit's query

STILL_IN_PROGRESS = "Request is still in progress"
NAMESPACES = ("workflows", "comfy")

REQUEST_ID_CHARS_MAX = 256  # ids are UUIDs of 36 characters; more than this is not an id
MESSAGE_CHARS_MAX = 300  # of fal's own words in one of our messages
DETAILS_READ_MAX = 5  # a list of a hundred schema errors is one message

_ENDPOINT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]*(?:/[A-Za-z0-9][A-Za-z0-9._~-]*)+")
_PLAIN_URL = re.compile(r"https?://[!-~]{1,8000}")
_OLD_ENDPOINT = re.compile(r"([0-9]+)-([A-Za-z0-9-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Base URLs of the four services that the key may be sent to; the API has its `/v1`."""

    queue: str = "https://queue.fal.run"
    rest: str = "https://rest.fal.ai"
    cdn: str = "https://v3.fal.media"
    api: str = "https://api.fal.ai/v1"

    def __post_init__(self) -> None:
        for name in ("queue", "rest", "cdn", "api"):
            object.__setattr__(self, name, getattr(self, name).rstrip("/"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back of one call. `is_whole` is False when the body broke off or was longer than we read."""

    status_code: int
    headers: Mapping[str, str]
    content: bytes
    is_whole: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What an error answer says.

    `error_type` is the machine's word for it, wherever it stood; `has_typed_detail` tells that the model itself wrote
    it (`detail` a list of typed entries); `is_json` is False for a page, an empty body, all but an object. `detail` is
    the body's own, whatever it is.
    """

    message: str
    error_type: str | None
    has_typed_detail: bool
    is_json: bool
    detail: Any = None


class CancelAnswer(enum.Enum):
    """What fal says when it is told to call a request off. None of it is how the request ends: its result says that."""

    ASKED = "asked"  # it will be told; a running one may still finish and be charged
    REMOVED = "removed"  # taken out of the queue before it started
    TOO_LATE = "too_late"  # complete already
    UNKNOWN = "unknown"  # fal knows no such request, or not yet
    UNCLEAR = "unclear"  # taken, in words that no page of fal's has


# --- ids and URLs ---------------------------------------------------------------------------------------------------


def app_id(endpoint: str) -> str:
    """The part of an endpoint id that its request URLs carry: owner and app, after a namespace where there is one.

    `fal-ai/bytedance/seedance/v1/…` gives `fal-ai/bytedance`. ValueError when it is not an endpoint id.
    """
    parts = _endpoint_path(endpoint).split("/")
    count = 3 if parts[0] in NAMESPACES else 2
    if len(parts) < count:
        raise ValueError(f"{endpoint!r} is not an endpoint id: expected owner/app or owner/app/path")
    return "/".join(parts[:count])


def submit_url(queue: str, endpoint: str) -> str:
    """Where a request is submitted: the full id. ValueError when it is not an endpoint id."""
    app_id(endpoint)
    return f"{queue.rstrip('/')}/{_endpoint_path(endpoint)}"


def ticket(queue: str, endpoint: str, request_id: str) -> Ticket:
    """The ticket of a request known by its id alone: URLs by owner and app, the endpoint's path dropped."""
    base = f"{queue.rstrip('/')}/{app_id(endpoint)}/requests/{quote(request_id, safe='')}"
    return Ticket(request_id=request_id, status_url=f"{base}/status", response_url=base, cancel_url=f"{base}/cancel")


def ticket_from(body: object, queue: str, endpoint: str) -> Ticket | None:
    """The ticket in a submit's answer, None when it has no request_id.

    Its URLs are taken where they lead to the queue host we are configured for, else built: the key goes with them.
    """
    request_id = parsed_request_id(body.get("request_id")) if isinstance(body, Mapping) else None
    if request_id is None:
        return None
    assert isinstance(body, Mapping)
    built = ticket(queue, endpoint, request_id)

    def ours(name: str, otherwise: str) -> str:
        url = body.get(name)
        return url if isinstance(url, str) and origin(url) == origin(queue) else otherwise

    return Ticket(
        request_id=request_id,
        status_url=ours("status_url", built.status_url),
        response_url=ours("response_url", built.response_url),
        cancel_url=ours("cancel_url", built.cancel_url),
    )


def origin(url: str) -> str | None:
    """Scheme, host and port of an http(s) URL, read by the library that will send to it; None when it is no such URL.

    A URL with a user name in it has none either: httpx would send that instead of the key.
    """
    if not isinstance(url, str):
        return None
    # Of plain characters all up to the path decides, and that is the same for nearly every URL of a run.
    return _origin("/".join(url.split("/", 3)[:3]) if _PLAIN_URL.fullmatch(url) else url)


@lru_cache(maxsize=64)
def _origin(url: str) -> str | None:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        return None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        return None
    port = parsed.port or (443 if parsed.scheme == "https" else 80)
    return f"{parsed.scheme}://{parsed.host}:{port}"


def _endpoint_path(endpoint: str) -> str:
    old = _OLD_ENDPOINT.fullmatch(endpoint)
    if old:
        return f"{old[1]}/{old[2]}"
    if not _ENDPOINT.fullmatch(endpoint):
        raise ValueError(f"{endpoint!r} is not an endpoint id: expected owner/app or owner/app/path")
    return endpoint


# --- answers --------------------------------------------------------------------------------------------------------


def parsed_json(content: bytes) -> Any:
    """The JSON value of a body, None when it is not JSON (or is null: no answer of fal's is).

    What strict JSON cannot hold is made harmless here, so that nothing below meets it: NaN and Infinity, which Python
    back ends print, become null; half a surrogate pair, left by a text cut in the middle, the replacement character.
    """
    try:
        return _whole_text(json.loads(content, parse_constant=lambda _: None))
    except (ValueError, RecursionError):
        return None


def _whole_text(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole_text(name): _whole_text(child) for name, child in value.items()}
    return [_whole_text(child) for child in value] if isinstance(value, list) else value


def is_at(url: str, base: str) -> bool:
    """Whether a URL leads to the host of `base`, itself the address of one (see `origin`)."""
    return url.startswith(base.rstrip("/") + "/") or origin(url) == origin(base)


def parsed_request_id(value: object) -> str | None:
    """A request_id, None when the value cannot be one. It is opaque: any printable text that is not absurdly long."""
    if isinstance(value, str) and 0 < len(value) <= REQUEST_ID_CHARS_MAX and value.isprintable() and value.strip(" ."):
        return value
    return None


def parsed_status(body: object) -> Status | None:
    """A status answer, None when its word is not one of the three."""
    if not isinstance(body, Mapping):
        return None
    try:
        status = FalStatus(body.get("status"))
    except ValueError:
        return None
    position = body.get("queue_position")
    metrics = body.get("metrics")
    seconds = metrics.get("inference_time") if isinstance(metrics, Mapping) else None
    error = body.get("error")
    return Status(
        status=status,
        queue_position=position if isinstance(position, int) and not isinstance(position, bool) else None,
        inference_time_s=_number(seconds),
        error=None if error is None else _shortened(error),
        error_type=_text(body.get("error_type")),
        logs=_logs(body.get("logs")),
    )


def _logs(value: object) -> tuple[Mapping[str, Any], ...] | None:
    if not isinstance(value, list):
        return None
    return tuple(entry if isinstance(entry, dict) else {"message": _plain(entry)} for entry in value)


_CANCEL_WORDS = {
    (200, "OK"): CancelAnswer.REMOVED,
    (202, "CANCELLATION_REQUESTED"): CancelAnswer.ASKED,
    (400, "ALREADY_COMPLETED"): CancelAnswer.TOO_LATE,
}


def parsed_cancel(answer: Answer) -> CancelAnswer | None:
    """What an answer to a cancellation says, None when it is neither a word of fal's nor a success.

    REMOVED only for exactly fal's own word, because it counts as money; any other success is UNCLEAR.
    """
    body = parsed_json(answer.content)
    word = body.get("status") if isinstance(body, Mapping) else None
    if isinstance(word, str) and (found := _CANCEL_WORDS.get((answer.status_code, word))):
        return found
    if answer.status_code in (404, 410) and isinstance(body, Mapping):
        return CancelAnswer.UNKNOWN
    if 200 <= answer.status_code < 300:
        return CancelAnswer.ASKED if answer.status_code == 202 else CancelAnswer.UNCLEAR
    return None


def parsed_outcome(answer: Answer) -> Outcome | None:
    """The model's output in a result answer, None when the body is not a JSON object."""
    body = parsed_json(answer.content)
    if not isinstance(body, dict):
        return None
    return Outcome(result=body, billable_units=_text(answer.headers.get(BILLABLE_UNITS_HEADER)))


def parsed_refusal(answer: Answer) -> Refusal:
    """What an error answer says: `detail` as text or as a list, the Platform API's `error` object, or neither."""
    body = parsed_json(answer.content)
    header_type = _text(answer.headers.get(ERROR_TYPE_HEADER))
    if not isinstance(body, Mapping):
        is_page = answer.content.lstrip()[:1] == b"<"
        words = "a web page" if is_page else answer.content[: 4 * MESSAGE_CHARS_MAX].decode(errors="replace")
        return Refusal(message=_shortened(words), error_type=header_type, has_typed_detail=False, is_json=False)
    entries = [entry for entry in _details(body) if isinstance(entry, Mapping)]
    detail_type = next((kind for entry in entries if (kind := _text(entry.get("type")))), None)
    return Refusal(
        message=_shortened(_message_of(body)),
        error_type=detail_type or _text(body.get("error_type")) or header_type,
        has_typed_detail=detail_type is not None,
        is_json=True,
        detail=body.get("detail"),
    )


def _details(body: Mapping[str, Any]) -> list[Any]:
    detail = body.get("detail")
    if isinstance(detail, list):
        return detail[:DETAILS_READ_MAX]
    return [detail] if detail else []


def _message_of(body: Mapping[str, Any]) -> str:
    """For a person: `body.image_url: The images … of real people`, several joined by semicolons."""
    lines = []
    for entry in _details(body):
        if not isinstance(entry, Mapping):
            lines.append(_plain(entry))
            continue
        loc = entry.get("loc")
        place = ".".join(str(part) for part in loc) if isinstance(loc, list) else ""
        words = _plain(entry.get("msg") or entry.get("message") or entry.get("type") or entry)
        lines.append(f"{place}: {words}" if place else words)
    if lines:
        return "; ".join(lines)
    error = body.get("error")
    if isinstance(error, Mapping):
        return _plain(error.get("message") or error)
    return _plain(error or body.get("message") or body.get("status") or "")


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _shortened(value: object) -> str:
    text = " ".join(_plain(value).split())
    return text if len(text) <= MESSAGE_CHARS_MAX else text[: MESSAGE_CHARS_MAX - 1] + "…"


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


# --- times ----------------------------------------------------------------------------------------------------------


def header_seconds(seconds: float) -> str:
    """Seconds as a header value: whole ones without a fraction."""
    assert 0 < seconds < math.inf
    return str(int(seconds)) if seconds == int(seconds) else repr(seconds)


def iso_time(moment: float) -> str:
    """Seconds since 1970 as fal's pages write a time: `2026-11-22T08:58:00Z`, whole seconds."""
    return datetime.datetime.fromtimestamp(math.floor(moment), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parsed_time(value: object) -> float | None:
    """An ISO date-time as seconds since 1970, None when it is none. A time without a zone is UTC."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.datetime.fromisoformat(value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


@lru_cache(maxsize=16)  # many answers come in one second
def parsed_http_date(value: str | None) -> float | None:
    """An HTTP date (a `Date` header) as seconds since 1970, None when it is none."""
    try:
        moment = email.utils.parsedate_to_datetime(value or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def parsed_retry_after(value: str | None, *, now: float, at_most_s: float) -> float | None:
    """A `Retry-After` header as seconds from `now`, 0 to `at_most_s`; None when there is none to read."""
    if value is None:
        return None
    try:
        seconds = float(value.strip())
    except ValueError:
        moment = parsed_http_date(value)
        if moment is None:
            return None
        seconds = moment - now
    return min(max(seconds, 0.0), at_most_s) if not math.isnan(seconds) else None
