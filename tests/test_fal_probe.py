"""Free questions about fal itself: what counts as an answer, and where the key goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

import anyio
import httpx
import pytest

from batch.errors import Action, CallFailed, InputError
from batch.fal import Hosts
from batch.fal.probe import NO_REQUEST, Probe, Reached

KEY = "key-id-1234:secret-5678"
ENDPOINT = "fal-ai/bytedance/seedance/v1/pro/fast/image-to-video"
NOW = 1795338000.0
NOT_FOUND = httpx.Response(404, json={"status": "NOT_FOUND"})
Question = Callable[[Probe], Awaitable[Any]]


class Fal:
    """A fal that gives one answer, or fails in one way, and the requests it got."""

    def __init__(self, answer: httpx.Response | Exception, *, key: str | None = KEY) -> None:
        self._answer = answer
        self._key = key
        self.requests: list[httpx.Request] = []

    def ask(self, question: Question, backend: str = "asyncio") -> Any:
        async def main() -> Any:
            transport = httpx.MockTransport(self._handle)
            probe = Probe(hosts=Hosts(), key=self._key, transport=transport, clock=lambda: NOW)
            try:
                return await question(probe)
            finally:
                await probe.aclose()

        return anyio.run(main, backend=backend)

    def failure(self, question: Question) -> CallFailed:
        with pytest.raises(CallFailed) as caught:
            self.ask(question)
        assert not [half for half in KEY.split(":") if half in str(caught.value) + repr(caught.value)]
        return caught.value

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def key(probe: Probe) -> Awaitable[None]:
    return probe.key(ENDPOINT)


def prices(probe: Probe) -> Awaitable[object]:
    return probe.prices([ENDPOINT])


def reach(probe: Probe) -> Awaitable[Reached]:
    return probe.reach("https://queue.fal.run")


# --- hosts ---


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("code", [200, 301, 404, 503])
def test_a_host_is_there_whatever_it_answers_and_does_not_see_the_key(code: int, backend: str) -> None:
    fal = Fal(httpx.Response(code))
    assert fal.ask(reach, backend).status_code == code
    assert "authorization" not in fal.requests[0].headers


@pytest.mark.parametrize("seconds", [-4000.0, 0.0, 75.0])
def test_a_hosts_clock_is_read_off_its_date_to_half_a_second(seconds: float) -> None:
    reached = Fal(httpx.Response(200, headers={"Date": formatdate(NOW + seconds, usegmt=True)})).ask(reach)
    assert reached.clock_offset_s == seconds + 0.5


@pytest.mark.parametrize(
    "headers",
    [{}, {"Date": "yesterday"}, {"Date": formatdate(NOW - 3600, usegmt=True), "Age": "3600"}],
    ids=["none", "unreadable", "of a cached answer"],
)
def test_a_date_that_is_not_of_now_tells_nothing(headers: dict[str, str]) -> None:
    assert Fal(httpx.Response(200, headers=headers)).ask(reach).clock_offset_s is None


def test_a_silent_host_is_named_with_the_cause() -> None:
    failure = Fal(httpx.ConnectError("refused")).failure(reach)
    assert (failure.cause, str(failure)) == ("connect", "no answer from https://queue.fal.run:443 (connect: refused)")


# --- the key ---


def test_a_key_is_taken_when_fal_says_that_it_knows_no_such_request() -> None:
    fal = Fal(NOT_FOUND)
    fal.ask(key)
    [request] = fal.requests
    assert (request.method, request.url.path) == ("GET", f"/fal-ai/bytedance/requests/{NO_REQUEST}/status")
    assert request.headers["authorization"] == f"Key {KEY}"


@pytest.mark.parametrize(
    ("code", "detail", "cause"),
    [
        (401, f"invalid key credentials {KEY}", "key_refused"),
        (403, "User is locked. Reason: Exhausted balance.", "account_locked"),
        (403, "no scope", "forbidden"),
    ],
)
def test_a_refused_key_is_told_by_its_cause(code: int, detail: str, cause: str) -> None:
    failure = Fal(httpx.Response(code, json={"detail": detail})).failure(key)
    assert (failure.action, failure.cause) == (Action.STOP_RUN, cause)


@pytest.mark.parametrize("answer", [httpx.Response(503), httpx.Response(404, text="<html>"), httpx.ReadTimeout("slow")])
def test_what_is_not_fals_word_does_not_judge_the_key(answer: httpx.Response | Exception) -> None:
    assert Fal(answer).failure(key).action is Action.REPEAT


@pytest.mark.parametrize("question", [key, prices])
def test_what_cannot_be_a_key_is_not_sent(question: Question) -> None:
    fal = Fal(NOT_FOUND, key="two words")
    with pytest.raises(InputError, match="FAL_KEY"):
        fal.ask(question)
    assert fal.requests == []


# --- what it may read ---


def test_prices_are_asked_for_one_endpoint() -> None:
    fal = Fal(httpx.Response(200, json={"prices": [{"endpoint_id": ENDPOINT, "unit_price": 1.0}]}))
    fal.ask(prices)
    assert (fal.requests[0].url.path, fal.requests[0].url.params["endpoint_id"]) == ("/v1/models/pricing", ENDPOINT)


@pytest.mark.parametrize(
    ("answer", "action"),
    [
        (httpx.Response(403, json={"error": {"message": "no scope"}}), Action.STOP_RUN),
        (httpx.Response(404, json={"detail": "Not Found"}), Action.STOP_RUN),
        (httpx.Response(200, json={"costs": []}), Action.REPEAT),
        (httpx.Response(500), Action.REPEAT),
    ],
)
def test_prices_that_are_not_told_are_a_failure(answer: httpx.Response, action: Action) -> None:
    failure = Fal(answer).failure(prices)
    assert (failure.action, str(failure)[:7]) == (action, "prices:")


def test_the_history_can_be_asked_for_one_request() -> None:
    item = {"request_id": "r1", "endpoint_id": ENDPOINT, "sent_at": "2026-11-22T09:00:00Z"}
    fal = Fal(httpx.Response(200, json={"items": [item], "has_more": False}))
    found = fal.ask(lambda probe: probe.past_requests(ENDPOINT, start=NOW - 60, end=NOW, request_id="r1"))
    assert [request.request_id for request in found] == ["r1"]
    assert fal.requests[0].url.params["request_id"] == "r1"
