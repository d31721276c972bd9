"""How fal and what stands before it word a failure: gateway pages, refusals of the account, a model's verdicts.

Imports only its neighbours. When one of these is said, and instead of what, is decided elsewhere.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from batch.local.faults import RUNNER_ERRORS, Strike
from batch.local.replies import reply
from batch.local.store import START_TIMEOUT, Ended, Request

__all__ = [
    "cannot_sign",
    "failings",
    "gateway_page",
    "gone",
    "history_refused",
    "internal_error",
    "key_refused",
    "locked",
    "no_key",
    "not_found",
    "platform_error",
    "runner_error",
    "server_error",
    "too_many",
    "verdict",
]

_PAGE = (
    "<html>\r\n<head><title>{0}</title></head>\r\n<body>\r\n<center><h1>{0}</h1></center>\r\n"
    "<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
)
_NGINX_WORDS = {502: "Bad Gateway", 503: "Service Temporarily Unavailable", 504: "Gateway Time-out"}
_MODEL_ERRORS = ("generation_timeout", "downstream_service_error", "downstream_service_unavailable")


# --- in place of an answer ---


def gateway_page(code: int) -> Response:
    """What the ingress says: HTML, and no request id."""
    words = f"{code} {_NGINX_WORDS[code]}"
    return Response(_PAGE.format(words), code, {"server": "nginx"}, media_type="text/html")


def server_error(code: int) -> Response:
    """A 5xx in JSON that names no type."""
    return reply({"detail": HTTPStatus(code).phrase}, code)


def too_many(retry_after_s: float | None) -> Response:
    """429 before anything was taken."""
    headers = {"x-fal-needs-retry": "1", "x-fal-retryable": "true"}
    if retry_after_s is not None:
        headers["retry-after"] = f"{retry_after_s:.0f}"
    return reply({"detail": "Queue is full"}, 429, headers)


def cannot_sign() -> Response:
    """A webhook is asked for and the package that signs it is not installed: better said than sent unsigned."""
    words = "The local queue signs webhooks with the package cryptography, which is missing: "
    return reply({"detail": words + "pip install cryptography"}, 501)


def no_key(app: str) -> Response:
    """No key, or at a submit one that is not known."""
    words = f'Cannot access application "{app}". Authentication is required to access this application.'
    return reply({"detail": words}, 401)


def key_refused(section: str, app: str | None) -> Response:
    """A key that was good before."""
    if section == "history":
        return platform_error(401, "authorization_error", "Invalid API key")
    return no_key(app or "") if section == "submit" else reply({"detail": "invalid key credentials"}, 401)


def locked() -> Response:
    """An account without credit: said at the submit, before anything is queued."""
    words = "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."
    return reply({"detail": words}, 403)


def history_refused() -> Response:
    """A key without the permission to read the history."""
    words = "This API key is not allowed to read the request history"
    return platform_error(403, "authorization_error", words)


def platform_error(code: int, kind: str, message: str) -> Response:
    """How the platform's own calls word a failure."""
    return reply({"error": {"type": kind, "message": message}}, code)


def not_found() -> Response:
    """An id that is not known."""
    return reply({"status": "NOT_FOUND"}, 404)


def gone(code: int) -> Response:
    """A result that has expired."""
    return not_found() if code == 404 else reply({"detail": "Gone"}, code)


# --- verdicts of a model, of a runner ---


def internal_error() -> Ended:
    """What fal's framework makes of an exception in a model's code."""
    return Ended(code=500, body=_detail("internal_server_error", ["body"], "Internal server error"))


def verdict(strike: Strike, request: Request) -> Ended:
    """How a request ends that a fault of the section `verdict` hit."""
    name = strike.fault.kind.name
    if name == "invalid_input":
        said = str(request.input.get("prompt", ""))
        words = "String should have at most 0 characters"
        body = _detail("sequence_too_long", ["body", "prompt"], words, ctx={"max_length": 0}, input=said)
        return Ended(code=422, body=body, headers={"x-fal-billable-units": "0", "x-fal-retryable": "false"})
    if name == "content_policy":
        words = "The images or videos provided may contain likenesses of real people"
        ctx = {"extra_info": {"reason": "partner_validation_failed"}}
        body = _detail("content_policy_violation", ["body", "image_url"], words, ctx=ctx)
        return Ended(code=422, body=body, headers={"x-fal-retryable": "false"})
    if name == "runner_error":
        return runner_error(strike.pick("types"))
    if name == "start_timeout":
        return START_TIMEOUT
    assert name == "internal_error", f"no verdict is called {name}"
    return internal_error()


def failings(ended: Ended) -> list[str]:
    """What is wrong, a line each, for the request's log; nothing when all went well."""
    if ended.code == 200:
        return []
    detail = ended.body.get("detail")
    if not isinstance(detail, list):
        return [f"{ended.code}: {detail}"]
    return [f"{ended.code} {'.'.join(map(str, entry['loc'][1:]))}: {entry['msg']}" for entry in detail]


def runner_error(kind: str) -> Ended:
    """How a request ends whose runner failed."""
    code, words = RUNNER_ERRORS[kind], kind.replace("_", " ").capitalize()
    if kind in _MODEL_ERRORS:
        return Ended(code=code, body=_detail(kind, ["body"], words), headers={"x-fal-retryable": "true"})
    return Ended(code=code, body={"detail": words, "error_type": kind}, headers={"x-fal-error-type": kind})


def _detail(kind: str, loc: list[str], message: str, **more: Any) -> dict[str, Any]:
    entry = {"loc": loc, "msg": message, "type": kind, "url": f"https://docs.fal.ai/errors/#{kind}", **more}
    return {"detail": [entry]}
