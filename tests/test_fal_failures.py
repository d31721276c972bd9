"""The failure table: nothing is unmapped, and no row allows a second payment."""

from __future__ import annotations

import inspect
import json
from typing import Any

import httpx
import pytest

from batch.errors import Action, CallFailed
from batch.fal import failures
from batch.fal.failures import Call, Verdict, answer_failure, transport_failure
from batch.fal.protocol import Answer

HTTPX_ERRORS = sorted(
    (kind for kind in vars(httpx).values() if inspect.isclass(kind) and issubclass(kind, Exception)),
    key=lambda kind: kind.__name__,
)
NEVER_SENT = {
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.ProxyError,
    httpx.InvalidURL,
    httpx.UnsupportedProtocol,
}
ID = "019e55e3-1111-7000-8000-000000000001"
NGINX = b"<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"
CANCELLED_FREE = {"x_fal_billable_units": "0", "x_fal_error_type": "client_cancelled"}
LOCKED = {"detail": "User is locked. Reason: Exhausted balance. Top up your balance at fal.ai/dashboard/billing."}


def made(kind: type[Exception]) -> Exception:
    request = httpx.Request("POST", "https://queue.fal.run/a/b")
    if kind is httpx.HTTPStatusError:
        return httpx.HTTPStatusError("x", request=request, response=httpx.Response(500, request=request))
    if kind in (httpx.StreamConsumed, httpx.StreamClosed, httpx.ResponseNotRead, httpx.RequestNotRead):
        return kind()
    return kind("x")


def failure(call: Call, code: int, body: object = None, *, is_whole: Any = True, **headers: str) -> CallFailed:
    content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    named = httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()})
    answer = Answer(status_code=code, headers=named, content=content, is_whole=is_whole)
    return answer_failure(call, answer, now=1795338001.0)


def detail(kind: str, message: str = "words") -> dict[str, object]:
    return {"detail": [{"loc": ["body", "prompt"], "msg": message, "type": kind}]}


@pytest.mark.parametrize("kind", HTTPX_ERRORS)
def test_every_error_class_of_httpx_is_in_the_table_by_itself(kind: type[Exception]) -> None:
    assert kind in failures.TRANSPORT_ERRORS


@pytest.mark.parametrize("call", Call)
@pytest.mark.parametrize("kind", HTTPX_ERRORS)
def test_every_error_has_a_next_step_for_every_call(kind: type[Exception], call: Call) -> None:
    verdict = transport_failure(call, made(kind))
    if call is Call.SUBMIT:
        assert (kind in NEVER_SENT) is (verdict.action in (Action.RESUBMIT, Action.STOP_RUN))
        assert (kind not in NEVER_SENT) is (verdict.action is Action.IN_DOUBT)
    else:
        assert verdict.action in (Action.REPEAT, Action.STOP_RUN)


def test_an_unknown_kind_of_error_counts_as_the_nearest_known() -> None:
    class NewError(httpx.ReadError):
        pass

    assert Verdict(Action.IN_DOUBT, "read") == transport_failure(Call.SUBMIT, NewError("x"))
    assert Verdict(Action.IN_DOUBT, "deadline") == transport_failure(Call.SUBMIT, TimeoutError())
    assert Verdict(Action.IN_DOUBT, "network") == transport_failure(Call.SUBMIT, ConnectionResetError())


@pytest.mark.parametrize(
    ("code", "body", "action", "cause"),
    [
        (400, {"detail": "prompt is not text", "error_type": "bad_request"}, Action.FAIL_JOB, "bad_request"),
        (400, {"detail": "Invalid header X-Fal-Request-Timeout"}, Action.STOP_RUN, "bad_request"),
        (400, NGINX, Action.STOP_RUN, "bad_request"),
        (401, {"detail": "invalid key credentials"}, Action.STOP_RUN, "key_refused"),
        (402, None, Action.STOP_RUN, "account_locked"),
        (403, LOCKED, Action.STOP_RUN, "account_locked"),
        (403, {"detail": "no access to this model"}, Action.STOP_RUN, "forbidden"),
        (404, {"detail": "Application not found"}, Action.STOP_RUN, "endpoint_unknown"),
        (405, None, Action.STOP_RUN, "http_405"),
        (415, None, Action.STOP_RUN, "http_415"),
        (407, None, Action.STOP_RUN, "proxy_refused"),
        (408, None, Action.IN_DOUBT, "http_408"),
        (409, None, Action.IN_DOUBT, "http_409"),
        (413, None, Action.FAIL_JOB, "too_large"),
        (418, None, Action.IN_DOUBT, "http_418"),
        (422, detail("missing"), Action.FAIL_JOB, "invalid_input"),
        (429, None, Action.RESUBMIT, "http_429"),
        (499, None, Action.IN_DOUBT, "http_499"),
        (500, {"detail": "oops"}, Action.IN_DOUBT, "http_500"),
        (502, NGINX, Action.IN_DOUBT, "http_502"),
        (503, NGINX, Action.IN_DOUBT, "http_503"),
        (504, NGINX, Action.IN_DOUBT, "http_504"),
        (200, NGINX, Action.IN_DOUBT, "no_request_id"),
        (202, {"status": "IN_QUEUE"}, Action.IN_DOUBT, "no_request_id"),
        (204, None, Action.IN_DOUBT, "no_request_id"),
        (302, None, Action.STOP_RUN, "redirected"),
        (308, None, Action.STOP_RUN, "redirected"),
        (303, None, Action.IN_DOUBT, "http_303"),
        (304, None, Action.IN_DOUBT, "http_304"),
    ],
)
def test_submit_answers(code: int, body: object, action: Action, cause: str) -> None:
    found = failure(Call.SUBMIT, code, body)
    assert (action, cause, code) == (found.action, found.cause, found.status_code)


def test_only_a_clean_429_makes_a_submit_safe_to_repeat() -> None:
    safe = [code for code in range(200, 600) if failure(Call.SUBMIT, code).action is Action.RESUBMIT]
    assert safe == [429]


def test_a_broken_submit_answer_is_in_doubt_whatever_its_code() -> None:
    for code in range(200, 600):
        found = failure(Call.SUBMIT, code, b'{"deta', is_whole=False, x_fal_request_id=ID)
        assert (found.action, found.request_id) == (Action.IN_DOUBT, ID), code


def test_a_submits_request_id_is_taken_from_wherever_it_stands() -> None:
    assert failure(Call.SUBMIT, 503, NGINX, x_fal_request_id=ID).request_id == ID
    assert failure(Call.SUBMIT, 500, {"request_id": ID}).request_id == ID
    assert failure(Call.SUBMIT, 502, NGINX).request_id is None


def test_a_redirect_that_fal_gave_a_name_is_in_doubt() -> None:
    assert failure(Call.SUBMIT, 307, x_fal_request_id=ID).action is Action.IN_DOUBT


@pytest.mark.parametrize(
    ("code", "body", "action", "cause"),
    [
        (200, NGINX, Action.REPEAT, "bad_body"),
        (200, {"status": "NEW_WORD"}, Action.REPEAT, "bad_body"),
        (401, None, Action.STOP_RUN, "key_refused"),
        (403, LOCKED, Action.STOP_RUN, "account_locked"),
        (403, None, Action.STOP_RUN, "forbidden"),
        (404, {"status": "NOT_FOUND"}, Action.REPEAT, "status_not_found"),
        (405, None, Action.STOP_RUN, "http_405"),
        (429, None, Action.REPEAT, "http_429"),
        (500, detail("internal_server_error"), Action.REPEAT, "http_500"),
        (503, NGINX, Action.REPEAT, "http_503"),
        (302, None, Action.REPEAT, "http_302"),
    ],
)
def test_status_answers(code: int, body: object, action: Action, cause: str) -> None:
    found = failure(Call.STATUS, code, body)
    assert (action, cause) == (found.action, found.cause)


@pytest.mark.parametrize(
    ("code", "body", "headers", "action", "cause", "is_billed"),
    [
        (202, {"status": "IN_PROGRESS"}, {}, Action.WAIT, "in_progress", None),
        (400, {"detail": "Request is still in progress"}, {}, Action.WAIT, "in_progress", None),
        (400, {"detail": "bad"}, {}, Action.FAIL_JOB, "http_400", None),
        (400, NGINX, {}, Action.REPEAT, "http_400", None),
        (400, detail("downstream_service_error"), {}, Action.RESUBMIT, "downstream_service_error", False),
        (500, detail("downstream_service_error"), {}, Action.RESUBMIT, "downstream_service_error", False),
        (401, {"detail": "no"}, {}, Action.STOP_RUN, "key_refused", None),
        (403, LOCKED, {}, Action.STOP_RUN, "account_locked", None),
        (403, {"detail": "no"}, {}, Action.STOP_RUN, "forbidden", None),
        (403, detail("feature_not_supported"), {}, Action.FAIL_JOB, "feature_not_supported", None),
        (404, {"status": "NOT_FOUND"}, {}, Action.EXPIRED, "result_gone", None),
        (404, None, {}, Action.EXPIRED, "result_gone", None),
        (404, NGINX, {}, Action.REPEAT, "http_404", None),
        (410, {"detail": "expired"}, {}, Action.EXPIRED, "result_gone", None),
        (404, {"detail": "Path /x not found"}, {}, Action.STOP_RUN, "path_unknown", False),
        (422, detail("content_policy_violation"), {}, Action.FAIL_JOB, "content_policy_violation", True),
        (422, detail("no_media_generated"), {}, Action.FAIL_JOB, "no_media_generated", True),
        (422, detail("one_of"), {"x_fal_billable_units": "0"}, Action.FAIL_JOB, "one_of", False),
        (422, detail("one_of"), {"x_fal_billable_units": "0.0"}, Action.FAIL_JOB, "one_of", False),
        (422, detail("one_of"), {"x_fal_billable_units": "2"}, Action.FAIL_JOB, "one_of", True),
        (422, {"detail": "text"}, {}, Action.FAIL_JOB, "http_422", True),
        (422, NGINX, {}, Action.REPEAT, "http_422", None),
        (429, None, {}, Action.REPEAT, "http_429", None),
        (499, {"detail": "x", "error_type": "client_cancelled"}, {}, Action.CANCELLED, "client_cancelled", None),
        (499, None, {"x_fal_error_type": "client_cancelled"}, Action.CANCELLED, "client_cancelled", None),
        (499, None, CANCELLED_FREE, Action.CANCELLED, "client_cancelled", False),
        (499, {"error_type": "client_disconnected"}, {}, Action.RESUBMIT, "client_disconnected", False),
        (499, NGINX, {}, Action.REPEAT, "http_499", None),
        (500, detail("internal_server_error"), {}, Action.RESUBMIT, "internal_server_error", False),
        (500, {"detail": "x", "error_type": "internal_error"}, {}, Action.RESUBMIT, "internal_error", False),
        (500, {"detail": "x"}, {}, Action.REPEAT, "http_500", None),
        (500, {"error": {"type": "server_error"}}, {}, Action.REPEAT, "http_500", None),
        (502, NGINX, {}, Action.REPEAT, "http_502", None),
        (502, NGINX, {"x_fal_error_type": "runner_incomplete"}, Action.RESUBMIT, "runner_incomplete", False),
        (503, {"detail": "x", "error_type": "runner_disconnected"}, {}, Action.RESUBMIT, "runner_disconnected", False),
        (504, detail("generation_timeout"), {}, Action.RESUBMIT, "generation_timeout", False),
        (504, NGINX, {}, Action.REPEAT, "http_504", None),
        (504, None, {"x_fal_request_timeout_type": "user"}, Action.RESUBMIT, "start_timeout", False),
        (504, None, {"x_fal_request_timeout_type": "infra"}, Action.REPEAT, "http_504", None),
        (200, NGINX, {}, Action.REPEAT, "bad_body", None),
        (302, None, {}, Action.REPEAT, "http_302", None),
    ],
)  # fmt: skip
def test_result_answers(
    code: int, body: object, headers: dict[str, str], action: Action, cause: str, is_billed: bool | None
) -> None:
    found = failure(Call.RESULT, code, body, **headers)
    assert (action, cause, is_billed) == (found.action, found.cause, found.is_billed)


def test_a_verdict_that_was_charged_is_not_repeated_by_itself() -> None:
    found = failure(Call.RESULT, 500, detail("internal_server_error"), x_fal_billable_units="1.5")
    assert (found.action, found.is_billed, found.billable_units) == (Action.FAIL_JOB, True, "1.5")


@pytest.mark.parametrize("name", ["x_fal_retryable", "x_fal_needs_retry"])
def test_the_retryable_header_is_the_authority(name: str) -> None:
    for value, action in (("false", Action.FAIL_JOB), ("0", Action.FAIL_JOB), ("1", Action.RESUBMIT)):
        assert action is failure(Call.RESULT, 500, detail("internal_server_error"), **{name: value}).action


def test_a_refusal_is_readable() -> None:
    found = failure(Call.RESULT, 422, detail("content_policy_violation", "likenesses of real people"))
    assert str(found) == "result: fal answered 422: body.prompt: likenesses of real people"


@pytest.mark.parametrize("body", [None, NGINX, {"detail": "words"}])
def test_a_paid_result_is_never_submitted_again_on_an_untyped_answer(body: object) -> None:
    for code in range(200, 600):
        assert failure(Call.RESULT, code, body).action is not Action.RESUBMIT, code


@pytest.mark.parametrize(
    ("code", "body", "action", "cause"),
    [
        (302, None, Action.REPEAT, "http_302"),
        (400, {"detail": "no"}, Action.WAIT, "http_400"),
        (401, None, Action.STOP_RUN, "key_refused"),
        (403, LOCKED, Action.STOP_RUN, "account_locked"),
        (403, {"detail": "no"}, Action.STOP_RUN, "forbidden"),
        (403, NGINX, Action.REPEAT, "http_403"),
        (404, NGINX, Action.REPEAT, "http_404"),
        (405, {"detail": "Method Not Allowed"}, Action.WAIT, "http_405"),
        (405, NGINX, Action.REPEAT, "http_405"),
        (429, None, Action.REPEAT, "http_429"),
        (500, None, Action.REPEAT, "http_500"),
        (501, None, Action.WAIT, "http_501"),
        (503, NGINX, Action.REPEAT, "http_503"),
    ],
)
def test_cancel_answers(code: int, body: object, action: Action, cause: str) -> None:
    found = failure(Call.CANCEL, code, body)
    assert (action, cause) == (found.action, found.cause)


def test_no_answer_to_a_cancellation_is_the_end_of_a_job() -> None:
    for body in (None, NGINX, {"detail": "words"}, {"status": "OK"}, detail("internal_server_error")):
        for code in range(200, 600):
            found = failure(Call.CANCEL, code, body, x_fal_error_type="client_cancelled")
            assert found.action in {Action.REPEAT, Action.WAIT, Action.STOP_RUN}, code


@pytest.mark.parametrize(
    ("code", "action"),
    [
        (200, Action.REPEAT),
        (400, Action.FAIL_JOB),
        (401, Action.STOP_RUN),
        (403, Action.STOP_RUN),
        (413, Action.FAIL_JOB),
        (422, Action.FAIL_JOB),
        (429, Action.REPEAT),
        (500, Action.REPEAT),
        (503, Action.REPEAT),
    ],
)
def test_upload_answers(code: int, action: Action) -> None:
    assert action is failure(Call.UPLOAD, code).action


def test_history_refused_is_told_from_history_in_trouble() -> None:
    for code in (400, 401, 403, 404):
        found = failure(Call.HISTORY, code, {"error": {"type": "authorization_error", "message": "no scope"}})
        assert (found.action, found.cause) == (Action.STOP_RUN, "history_refused")
        assert "no scope" in found.message
    for code in (200, 408, 429, 500, 503):
        assert failure(Call.HISTORY, code).action is Action.REPEAT


def test_retry_after_comes_along_and_is_bounded() -> None:
    assert failure(Call.SUBMIT, 429, retry_after="7").retry_after_s == 7.0
    assert failure(Call.STATUS, 503, retry_after="99999").retry_after_s == failures.RETRY_AFTER_S_MAX
