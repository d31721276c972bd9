"""The protocol's words: ids, URLs, and what answers say. Answers are those of fal's own pages."""

from __future__ import annotations

import json

import httpx
import pytest

from batch.fal import protocol
from batch.fal.protocol import Answer, CancelAnswer, Hosts
from batch.jobs import FalStatus

QUEUE = "https://queue.fal.run"
SEEDANCE = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"
ID = "019e55e3-1111-7000-8000-000000000001"


def answered(code: int, body: object, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status_code=code, headers=httpx.Headers(named), content=content)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (SEEDANCE, "fal-ai/bytedance"),
        ("owner/app", "owner/app"),
        ("workflows/owner/app/path", "workflows/owner/app"),
        ("comfy/owner/app", "comfy/owner/app"),
        ("12345-my-app", "12345/my-app"),
    ],
)
def test_request_urls_carry_owner_and_app_only(endpoint: str, expected: str) -> None:
    assert expected == protocol.app_id(endpoint)
    ticket = protocol.ticket(QUEUE, endpoint, ID)
    assert f"{QUEUE}/{expected}/requests/{ID}" == ticket.response_url
    assert f"{QUEUE}/{expected}/requests/{ID}/status" == ticket.status_url
    assert f"{QUEUE}/{expected}/requests/{ID}/cancel" == ticket.cancel_url


def test_a_submit_goes_to_the_full_id() -> None:
    assert f"{QUEUE}/{SEEDANCE}" == protocol.submit_url(QUEUE, SEEDANCE)
    assert f"{QUEUE}/12345/my-app" == protocol.submit_url(QUEUE, "12345-my-app")


@pytest.mark.parametrize(
    "endpoint",
    ["", "bytedance", "workflows/owner", "a/../b", "a//b", "/a/b", "a/b?x=1", "a/b#c", "a b/c", "a/b\n", "a/b/"],
)
def test_what_is_no_endpoint_id_makes_no_url(endpoint: str) -> None:
    with pytest.raises(ValueError, match="is not an endpoint id"):
        protocol.submit_url(QUEUE, endpoint)


def test_a_request_id_cannot_leave_its_place_in_the_url() -> None:
    assert f"{QUEUE}/a/b/requests/..%2F..%2Fx%3Fy" == protocol.ticket(QUEUE, "a/b", "../../x?y").response_url


def test_hosts_lose_the_slash_at_their_end() -> None:
    assert Hosts(api="http://localhost:1/v1") == Hosts(api="http://localhost:1/v1/")


def test_the_answers_urls_are_used_where_they_lead_to_the_queue() -> None:
    body = {
        "request_id": ID,
        "status_url": f"{QUEUE}:443/elsewhere/status",
        "response_url": f"{QUEUE}/elsewhere",
        "cancel_url": f"{QUEUE}/elsewhere/cancel",
    }
    ticket = protocol.ticket_from(body, QUEUE, SEEDANCE)
    assert ticket is not None
    assert (body["status_url"], body["response_url"], body["cancel_url"]) == (
        ticket.status_url,
        ticket.response_url,
        ticket.cancel_url,
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/requests/x",
        "http://queue.fal.run/requests/x",
        "https://queue.fal.run:8443/requests/x",
        "https://queue.fal.run@evil.example/x",
        "https://user:word@queue.fal.run/x",
        "https://queue.fal.run.evil.example/x",
        "//evil.example/x",
        "ftp://queue.fal.run/x",
        "https://[::1/x",
        "",
        None,
        7,
    ],
)
def test_urls_that_lead_elsewhere_are_built_instead(url: object) -> None:
    body = {"request_id": ID, "status_url": url, "response_url": url, "cancel_url": url}
    assert protocol.ticket(QUEUE, SEEDANCE, ID) == protocol.ticket_from(body, QUEUE, SEEDANCE)


@pytest.mark.parametrize("body", [None, [], "text", {}, {"request_id": ""}, {"request_id": 7}, {"request_id": "a\nb"}])
def test_without_a_request_id_there_is_no_ticket(body: object) -> None:
    assert protocol.ticket_from(body, QUEUE, SEEDANCE) is None


def test_a_status_needs_its_word_and_nothing_else() -> None:
    for word in FalStatus:
        status = protocol.parsed_status({"status": word.value})
        assert status is not None
        assert word is status.status
    assert protocol.parsed_status({"status": "FAILED"}) is None
    assert protocol.parsed_status({"status": ["IN_QUEUE"]}) is None
    assert protocol.parsed_status(["IN_QUEUE"]) is None


def test_a_status_carries_position_time_and_error() -> None:
    queued = protocol.parsed_status({"status": "IN_QUEUE", "queue_position": 3, "metrics": {}, "logs": None})
    assert queued is not None
    assert queued.queue_position == 3
    failed = protocol.parsed_status(
        {
            "status": "COMPLETED",
            "metrics": {"inference_time": 31.42},
            "error": "Runner disconnected",
            "error_type": "runner_disconnected",
        }
    )
    assert failed is not None
    assert (
        failed.inference_time_s,
        failed.error,
        failed.error_type,
    ) == (31.42, "Runner disconnected", "runner_disconnected")


def test_fields_of_another_type_cost_no_status() -> None:
    status = protocol.parsed_status(
        {"status": "COMPLETED", "queue_position": "1", "metrics": {"inference_time": None}, "error": {"a": 1}}
    )
    assert status is not None
    assert (status.queue_position, status.inference_time_s, status.error) == (None, None, '{"a": 1}')


def test_an_outcome_is_the_models_object_and_its_units() -> None:
    outcome = protocol.parsed_outcome(answered(200, {"video": {"url": "u"}}, x_fal_billable_units="0.0486"))
    assert outcome is not None
    assert (outcome.result, outcome.billable_units) == ({"video": {"url": "u"}}, "0.0486")
    assert protocol.parsed_outcome(answered(200, [1])) is None
    assert protocol.parsed_outcome(answered(200, b'{"video"')) is None


@pytest.mark.parametrize(
    ("body", "message", "error_type"),
    [
        ({"detail": "invalid key credentials"}, "invalid key credentials", None),
        ({"detail": "Runner gone", "error_type": "runner_disconnected"}, "Runner gone", "runner_disconnected"),
        (
            {"detail": [{"loc": ["body", "image_url"], "msg": "likenesses", "type": "content_policy_violation"}]},
            "body.image_url: likenesses",
            "content_policy_violation",
        ),
        (
            {"detail": [{"loc": ["body", "a"], "msg": "x", "type": "missing"}, "and more"]},
            "body.a: x; and more",
            "missing",
        ),
        ({"error": {"type": "rate_limited", "message": "slow down"}}, "slow down", None),
        ({"status": "NOT_FOUND"}, "NOT_FOUND", None),
        ({"detail": []}, "", None),
        (b"<html>nginx</html>", "a web page", None),
        (b"plain words", "plain words", None),
        (b"", "", None),
    ],
)
def test_a_refusal_is_read_in_every_shape(body: object, message: str, error_type: str | None) -> None:
    refusal = protocol.parsed_refusal(answered(422, body))
    assert (message, error_type) == (refusal.message, refusal.error_type)


def test_a_refusals_type_may_stand_in_the_header_alone() -> None:
    refusal = protocol.parsed_refusal(answered(503, b"", x_fal_error_type="runner_disconnected"))
    assert refusal.error_type == "runner_disconnected"
    assert not refusal.is_json


def test_a_long_refusal_is_shortened() -> None:
    refusal = protocol.parsed_refusal(answered(422, {"detail": "word " * 1000}))
    assert len(refusal.message) == protocol.MESSAGE_CHARS_MAX


@pytest.mark.parametrize(
    ("code", "body", "said"),
    [
        (200, {"status": "OK"}, CancelAnswer.REMOVED),
        (200, {"status": "ok"}, CancelAnswer.UNCLEAR),
        (200, {"success": True}, CancelAnswer.UNCLEAR),
        (200, {"status": "CANCELLATION_REQUESTED"}, CancelAnswer.UNCLEAR),
        (200, b"<html>a page</html>", CancelAnswer.UNCLEAR),
        (200, b"", CancelAnswer.UNCLEAR),
        (204, b"", CancelAnswer.UNCLEAR),
        (202, {"status": "CANCELLATION_REQUESTED"}, CancelAnswer.ASKED),
        (202, {"status": "OK"}, CancelAnswer.ASKED),
        (202, b"", CancelAnswer.ASKED),
        (400, {"status": "ALREADY_COMPLETED"}, CancelAnswer.TOO_LATE),
        (400, {"detail": "no"}, None),
        (404, {"status": "NOT_FOUND"}, CancelAnswer.UNKNOWN),
        (404, {"detail": "Request not found"}, CancelAnswer.UNKNOWN),
        (410, {"status": "NOT_FOUND"}, CancelAnswer.UNKNOWN),
        (404, b"<html>a page</html>", None),
        (404, b"", None),
        (409, {"status": "OK"}, None),
        (302, b"", None),
        (500, {"status": "OK"}, None),
    ],
)
def test_only_fals_own_word_is_a_removal(code: int, body: object, said: CancelAnswer | None) -> None:
    assert said is protocol.parsed_cancel(answered(code, body))


def test_json_that_is_none_is_none() -> None:
    for content in (b"", b"{", b"\xff\xfe\x00", b"[" * 100_000):
        assert protocol.parsed_json(content) is None


def test_seconds_in_headers_are_whole_where_they_are() -> None:
    assert [protocol.header_seconds(value) for value in (3600.0, 90, 0.5, 1234567.0)] == [
        "3600",
        "90",
        "0.5",
        "1234567",
    ]


def test_times_are_read_with_and_without_a_zone() -> None:
    moment = 1795338001.0
    assert protocol.iso_time(moment + 0.9) == "2026-11-22T09:00:01Z"
    for text in (
        "2026-11-22T09:00:01Z",
        "2026-11-22T09:00:01+00:00",
        "2026-11-22T10:00:01+01:00",
        "2026-11-22T09:00:01",
    ):
        assert moment == protocol.parsed_time(text)
    for wrong in (None, 7, "soon", "2026-13-01", ""):
        assert protocol.parsed_time(wrong) is None
    assert moment == protocol.parsed_http_date("Sun, 22 Nov 2026 09:00:01 GMT")
    assert protocol.parsed_http_date("yesterday") is None
    assert protocol.parsed_http_date(None) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("7", 7.0),
        ("1.5", 1.5),
        ("-3", 0.0),
        ("1e9", 600.0),
        ("inf", 600.0),
        ("nan", None),
        ("Sun, 22 Nov 2026 09:00:31 GMT", 30.0),
        ("Sun, 22 Nov 2026 08:00:00 GMT", 0.0),
        ("later", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_bounded(value: str | None, expected: float | None) -> None:
    assert expected == protocol.parsed_retry_after(value, now=1795338001.0, at_most_s=600.0)
