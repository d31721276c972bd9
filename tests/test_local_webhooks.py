"""Webhooks of the local queue on a virtual clock: what is sent, how it is signed, how often, and what goes wrong."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.parse
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from local_support import APP, BASE, ENDPOINT, EPOCH, Local, local_queue, on_virtual_clock, plan, virtual_now, wanted

from batch.local.signing import jwks, signature_headers

HOOK = "http://receiver.invalid/hook?job=batch 1&k=a+b"


class Receiver:
    """Somebody who is told. It answers with the given codes, the last of them for ever."""

    def __init__(self, *codes: int) -> None:
        self._codes = list(codes or (200,))
        self.heard: list[tuple[float, httpx.Request]] = []

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self._take)

    async def _take(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.heard.append((virtual_now() - EPOCH, request))
        code = self._codes.pop(0) if len(self._codes) > 1 else self._codes[0]
        if code == 0:
            await anyio.sleep_forever()
        if code < 0:
            raise httpx.ConnectError("nobody is there", request=request)
        return httpx.Response(code, headers={"location": "http://elsewhere.invalid/"} if code == 302 else {})

    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for _, request in self.heard]

    def times(self) -> list[float]:
        return [round(at, 3) for at, _ in self.heard]


@asynccontextmanager
async def told_queue(state: Path, receiver: Receiver, faults: str = "", **options: Any) -> AsyncIterator[Local]:
    async with local_queue(state, webhook_transport=receiver.transport(), faults=plan(faults), **options) as local:
        yield local


async def submitted(local: Local, input: dict[str, Any] | None = None, hook: str = HOOK) -> str:
    return str((await local.submit(input, params={"fal_webhook": hook}))["request_id"])


async def is_signed(local: Local, request: httpx.Request, *, tolerance_s: float = 300) -> bool:
    """Whether a receiver that goes by fal's page takes this for fal's."""
    keys = (await local.client.get("/.well-known/jwks.json")).json()["keys"]
    names = ("Request-Id", "User-Id", "Timestamp")
    parts = [request.headers.get(f"X-Fal-Webhook-{name}", "") for name in names]
    signature = request.headers.get("X-Fal-Webhook-Signature", "")
    message = "\n".join([*parts, hashlib.sha256(request.content).hexdigest()]).encode()
    if not signature or abs(virtual_now() - int(parts[2])) > tolerance_s:
        return False
    for key in keys:
        assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
        public = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(key["x"] + "="))
        try:
            public.verify(bytes.fromhex(signature), message)
        except InvalidSignature:
            continue
        return True
    return False


def test_the_signature_is_the_one_of_the_known_vector() -> None:
    secret = bytes(range(32))
    body = (
        b'{"request_id":"019e55e3-1111-7000-8000-000000000001","gateway_request_id":'
        b'"019e55e3-1111-7000-8000-000000000001","status":"OK","payload":{"seed":42}}'
    )
    assert signature_headers(secret, "019e55e3-1111-7000-8000-000000000001", body, 1795338000.9) == {
        "X-Fal-Webhook-Request-Id": "019e55e3-1111-7000-8000-000000000001",
        "X-Fal-Webhook-User-Id": "user_local",
        "X-Fal-Webhook-Timestamp": "1795338000",
        "X-Fal-Webhook-Signature": (
            "5ed3eb75ad6191278140872b52ee940a9d48bff22e43bdd03a5050cd4ec6545a"
            "985b2bf4db67706e04029be594971e9f93cb271c951f5a854ce0e668926f2b0c"
        ),
    }
    key = {"kty": "OKP", "crv": "Ed25519", "x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"}
    assert jwks([secret]) == {"keys": [key]}


def test_an_end_is_told_signed_to_the_address_as_it_was_given(tmp_path: Path) -> None:
    receiver = Receiver()

    async def test() -> None:
        async with told_queue(tmp_path, receiver) as local:
            request_id = await submitted(local)
            result = await local.finished(request_id)
            await anyio.sleep(1)
            [request] = [request for _, request in receiver.heard]
            assert (request.method, request.headers["content-type"]) == ("POST", "application/json")
            assert urllib.parse.parse_qs(request.url.query.decode()) == {"job": ["batch 1"], "k": ["a b"]}
            assert await is_signed(local, request)
            assert receiver.bodies() == [
                {
                    "request_id": request_id,
                    "gateway_request_id": request_id,
                    "status": "OK",
                    "payload": result.json(),
                }
            ]
            assert result.json()["video"]["url"].startswith(f"{BASE}/files/")

    on_virtual_clock(test)


def test_without_an_address_nobody_is_told(tmp_path: Path) -> None:
    receiver = Receiver()

    async def test() -> None:
        async with told_queue(tmp_path, receiver) as local:
            await local.finished((await local.submit())["request_id"])
            await anyio.sleep(600)

    on_virtual_clock(test)
    assert receiver.heard == []


def test_a_failure_is_told_with_its_body(tmp_path: Path) -> None:
    receiver = Receiver()

    async def test() -> None:
        async with told_queue(tmp_path, receiver) as local:
            request_id = await submitted(local, wanted(duration="13"))
            result = await local.finished(request_id)
            await anyio.sleep(1)
            [body] = receiver.bodies()
            assert (body["status"], body["error"]) == ("ERROR", "Invalid status code: 422")
            assert body["payload"] == result.json()

    on_virtual_clock(test)


@pytest.mark.parametrize("headers", [{"x-fal-request-start-timeout": "3"}, {}])
def test_what_never_ran_is_told_too(tmp_path: Path, headers: dict[str, str]) -> None:
    receiver = Receiver()

    async def test() -> None:
        async with told_queue(tmp_path, receiver) as local:
            await local.submit()
            request_id = (await local.submit(params={"fal_webhook": HOOK}, headers=headers))["request_id"]
            if not headers:
                await anyio.sleep(1)
                assert (await local.cancel(request_id)).json() == {"status": "OK"}
            await anyio.sleep(60)
            [body] = receiver.bodies()
            assert body["request_id"] == request_id
            assert body["payload"]["error_type"] == ("request_timeout" if headers else "client_cancelled")

    on_virtual_clock(test)


@pytest.mark.parametrize("trouble", [500, 404, 429, -1])
def test_it_is_told_again_with_growing_gaps_until_it_is_taken(tmp_path: Path, trouble: int) -> None:
    receiver = Receiver(trouble, trouble, trouble, 204)

    async def test() -> None:
        async with told_queue(tmp_path, receiver) as local:
            await submitted(local)
            await anyio.sleep(4000)

    on_virtual_clock(test)
    assert receiver.times() == [10, 11, 13, 17]


def test_a_receiver_has_fifteen_seconds_at_first_and_two_minutes_later(tmp_path: Path) -> None:
    receiver = Receiver(0, 0, 200)

    async def test() -> None:
        async with told_queue(tmp_path, receiver) as local:
            await submitted(local)
            await anyio.sleep(4000)

    on_virtual_clock(test)
    assert receiver.times() == [10, 10 + 15 + 1, 10 + 15 + 1 + 120 + 2]


def test_it_is_told_at_most_31_times_and_within_the_hour(tmp_path: Path) -> None:
    receiver = Receiver(500)

    async def test() -> None:
        async with told_queue(tmp_path, receiver) as local:
            await submitted(local)
            await anyio.sleep(10_000)

    on_virtual_clock(test)
    assert len(receiver.heard) == 31
    assert 3400 < receiver.times()[-1] < 3610


def test_a_redirect_ends_it(tmp_path: Path) -> None:
    receiver = Receiver(302)

    async def test() -> None:
        async with told_queue(tmp_path, receiver) as local:
            await submitted(local)
            await anyio.sleep(4000)

    on_virtual_clock(test)
    assert len(receiver.heard) == 1


@pytest.mark.parametrize("address", ["not an address", "ftp://receiver.invalid/", "http://", "http://a b/"])
def test_an_address_that_is_none_costs_only_the_webhook(tmp_path: Path, address: str) -> None:
    async def test() -> None:
        async with local_queue(tmp_path) as local:
            request_id = await submitted(local, hook=address)
            assert (await local.finished(request_id)).status_code == 200
            await anyio.sleep(5)
            assert (await local.finished(await submitted(local, hook=address))).status_code == 200

    on_virtual_clock(test)


def test_a_slow_receiver_does_not_hold_up_the_others(tmp_path: Path) -> None:
    receiver = Receiver(0, 200)

    async def test() -> None:
        async with told_queue(tmp_path, receiver) as local:
            for _ in range(3):
                await submitted(local)
            await anyio.sleep(100)

    on_virtual_clock(test)
    assert receiver.times()[:3] == [10, 20, 26]  # the third is the first once more, 15 s and 1 s later


def test_a_restart_loses_no_webhook_and_keeps_the_key(tmp_path: Path) -> None:
    gone, receiver = Receiver(-1), Receiver()

    async def test() -> None:
        async with told_queue(tmp_path, gone) as local:
            request_id = await submitted(local)
            waiting = await submitted(local)
            await anyio.sleep(12)
            keys = (await local.client.get("/.well-known/jwks.json")).json()
        async with told_queue(tmp_path, receiver) as local:
            await anyio.sleep(300)
            assert [body["request_id"] for body in receiver.bodies()] == [request_id, waiting]
            assert (await local.client.get("/.well-known/jwks.json")).json() == keys
            assert len(keys["keys"]) == 1

    on_virtual_clock(test)
    assert gone.heard


def test_what_was_taken_is_not_told_again_after_a_restart(tmp_path: Path) -> None:
    receiver = Receiver()

    async def test() -> None:
        for _ in range(2):
            async with told_queue(tmp_path, receiver) as local:
                if not receiver.heard:
                    await submitted(local)
                await anyio.sleep(100)

    on_virtual_clock(test)
    assert len(receiver.heard) == 1


# --- what goes wrong on purpose ---


def heard(tmp_path: Path, faults: str, then: Callable[[Local, Receiver], Any], *, count: int = 1) -> None:
    receiver = Receiver()

    async def test() -> None:
        async with told_queue(tmp_path, receiver, faults) as local:
            for _ in range(count):
                await submitted(local)
            await anyio.sleep(200)
            await then(local, receiver)

    on_virtual_clock(test)


def test_a_webhook_may_be_lost(tmp_path: Path) -> None:
    async def then(local: Local, receiver: Receiver) -> None:
        assert receiver.heard == []
        assert (await local.client.get("/local/faults")).json()["struck"] == {"webhook.lost": 1}

    heard(tmp_path, "webhook: {lost: 100%}", then)


def test_a_webhook_may_be_late_and_is_signed_when_it_is_sent(tmp_path: Path) -> None:
    async def then(local: Local, receiver: Receiver) -> None:
        [(at, request)] = receiver.heard
        assert round(at) == 10 + 100
        assert int(request.headers["X-Fal-Webhook-Timestamp"]) == EPOCH + 110

    heard(tmp_path, "webhook: {late: {rate: 100%, for: 100s}}", then)


def test_a_webhook_may_come_again_after_it_was_taken(tmp_path: Path) -> None:
    async def then(local: Local, receiver: Receiver) -> None:
        assert receiver.times() == [10, 17, 24]
        assert receiver.bodies()[0] == receiver.bodies()[2]

    heard(tmp_path, "webhook: {duplicate: {rate: 100%, times: 2, after: 7s}}", then)


@pytest.mark.parametrize("how", ["key", "body", "unsigned", "stale"])
def test_a_forgery_comes_first_and_does_not_pass(tmp_path: Path, how: str) -> None:
    async def then(local: Local, receiver: Receiver) -> None:
        lie, truth = [request for _, request in receiver.heard]
        assert receiver.times() == [10, 10]
        age = virtual_now() - EPOCH - 10
        assert not await is_signed(local, lie, tolerance_s=age + 300)
        assert await is_signed(local, truth, tolerance_s=age + 300)
        assert (lie.content == truth.content) == (how == "stale")

    heard(tmp_path, f"webhook: {{forged: {{rate: 100%, how: [{how}]}}}}", then)


def test_a_payload_may_be_missing(tmp_path: Path) -> None:
    async def then(local: Local, receiver: Receiver) -> None:
        [body] = receiver.bodies()
        assert (body["status"], body["payload"]) == ("OK", None)
        assert "not JSON serializable" in body["payload_error"]

    heard(tmp_path, "webhook: {no_payload: 100%}", then)


def test_a_key_may_be_rotated_and_both_are_shown(tmp_path: Path) -> None:
    async def then(local: Local, receiver: Receiver) -> None:
        keys = (await local.client.get("/.well-known/jwks.json")).json()["keys"]
        assert len({key["x"] for key in keys}) == 2
        for _, request in receiver.heard:
            assert await is_signed(local, request)
        first, second, _third = [request for _, request in receiver.heard]
        await local.client.put("/local/faults")
        assert await is_signed(local, first)
        assert not await is_signed(local, second)

    heard(tmp_path, "webhook: {rotated_after: 1}", then, count=3)


def test_the_full_path_of_a_submit_keeps_its_webhook(tmp_path: Path) -> None:
    receiver = Receiver()

    async def test() -> None:
        async with told_queue(tmp_path, receiver) as local:
            encoded = "http%3A%2F%2Freceiver.invalid%2Fx%3Fjob%3D1%26k%3Da+b"
            answer = await local.client.post(f"/{ENDPOINT}?fal_webhook={encoded}", json=wanted())
            assert f"/{APP}/requests/" in answer.json()["status_url"]
            await anyio.sleep(20)

    on_virtual_clock(test)
    assert [str(request.url) for _, request in receiver.heard] == ["http://receiver.invalid/x?job=1&k=a%20b"]
