"""The door for fal's webhooks: what comes in, what is refused and with which code, and how often fal's keys are asked
for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import anyio
import httpx
import pytest
import trio.testing
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from test_fal_webhook import ID, KEY, SECRET, attempt

from batch.errors import Action, Blocked, CallFailed
from batch.fal.webhook import Address, Delivery, Receipt, Signed, delivery_address
from batch.receiver import BODY_BYTES_MAX, KEYS_LIFE_S, READ_S, REFETCH_S, build_app

NOW = 1_795_338_000
BASE = "https://hooks.example.com/fal"
FALS, STRANGERS = Ed25519PrivateKey.from_private_bytes(bytes(range(32))), Ed25519PrivateKey.generate()


class Door:
    """A receiver, and what went through it."""

    def __init__(self) -> None:
        self.came: list[tuple[Address, Delivery]] = []
        self.said: list[str] = []
        self.key_calls = 0
        self.keys = [FALS]
        self.trouble: Exception | None = None
        self.answer: Receipt | Exception = Receipt.TAKEN
        app = build_app(secret=SECRET, keys=self._keys, now=lambda: NOW, receive=self._receive, say=self.said.append)
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE)

    async def _keys(self) -> tuple[bytes, ...]:
        self.key_calls += 1
        await anyio.sleep(0.1)
        if self.trouble is not None:
            raise self.trouble
        return tuple(key.public_key().public_bytes_raw() for key in self.keys)

    def _receive(self, address: Address, delivery: Delivery) -> Receipt:
        self.came.append((address, delivery))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def post(self, url: str | None = None, body: bytes | None = None, **headers: str) -> int:
        """Deliver as fal would, but for what is said otherwise; an empty header is left out."""
        body = body_of() if body is None else body
        told = {**signed(body), **{f"x-fal-webhook-{name}": value for name, value in headers.items()}}
        url = delivery_address(BASE, attempt(), SECRET) if url is None else url
        answer = await self.client.post(url, content=body, headers={k: v for k, v in told.items() if v})
        return answer.status_code


def body_of(**changed: Any) -> bytes:
    return json.dumps({"request_id": ID, "status": "OK", "payload": {"seed": 42}, **changed}).encode()


def signed(body: bytes, *, key: Ed25519PrivateKey = FALS, at: int = NOW) -> dict[str, str]:
    signature = key.sign(Signed(request_id=ID, user_id="u", timestamp=at, signature=b"").message(body)).hex()
    names = {"request-id": ID, "user-id": "u", "timestamp": str(at), "signature": signature}
    return {f"x-fal-webhook-{name}": value for name, value in names.items()}


def signature(body: bytes, **how: Any) -> str:
    return signed(body, **how)["x-fal-webhook-signature"]


def tried(test: Callable[[Door], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(Door())

    anyio.run(main, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})


def test_what_fal_says_to_an_address_of_ours_comes_in() -> None:
    async def test(door: Door) -> None:
        assert await door.post() == 200
        assert await door.post(delivery_address("https://hooks.example.com/", attempt(8), SECRET)) == 200
        assert [(a.attempt_id, a.job_key, d.request_id, d.result) for a, d in door.came] == [
            (7, KEY, ID, {"seed": 42}),
            (8, KEY, ID, {"seed": 42}),
        ]
        assert door.said == []

    tried(test)


@pytest.mark.parametrize(
    "url",
    [
        BASE,
        f"{BASE}?attempt=7",
        delivery_address(BASE, attempt(), "6" * 64),
        delivery_address(BASE, attempt(), SECRET).replace("attempt=7", "attempt=8"),
        delivery_address(BASE, attempt(), SECRET)[:-1],
        delivery_address(BASE, attempt(), SECRET) + "0",
    ],
)
def test_an_address_that_this_ledger_did_not_make_is_refused_before_anything_is_read_or_asked(url: str) -> None:
    async def endless() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async def test(door: Door) -> None:
        answer = await door.client.post(url, content=endless(), headers=signed(body_of()))
        assert (answer.status_code, door.came, door.key_calls) == (404, [], 0)

    tried(test)


FORGED = body_of(payload={"video": {"url": "https://forged.invalid/video.mp4"}})


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (FORGED, {"signature": signature(body_of())}),
        (FORGED, {"signature": signature(FORGED, key=STRANGERS)}),
        (FORGED, {"signature": "00" * 64}),
        (FORGED, {"signature": ""}),
        (FORGED, {"signature": "no hex"}),
        (FORGED, {"timestamp": ""}),
        (FORGED, {"user-id": ""}),
        (FORGED, {"request-id": ""}),
        (None, {"user-id": "somebody else"}),
        (None, {"timestamp": str(NOW + 1)}),
    ],
    ids=["of another body", "a stranger's", "noise", "none", "not hex", *["a header missing"] * 3, "user", "time"],
)
def test_what_fal_did_not_sign_is_refused(body: bytes | None, headers: dict[str, str]) -> None:
    async def test(door: Door) -> None:
        assert await door.post(body=body, **headers) == 401
        assert door.came == []

    tried(test)


@pytest.mark.parametrize(("age_s", "code"), [(300, 200), (-300, 200), (301, 401), (-301, 401), (3600, 401)])
def test_a_signature_holds_for_five_minutes(age_s: int, code: int) -> None:
    async def test(door: Door) -> None:
        body = body_of()
        answer = await door.client.post(
            delivery_address(BASE, attempt(), SECRET), content=body, headers=signed(body, at=NOW - age_s)
        )
        assert (answer.status_code, len(door.came)) == (code, int(code == 200))

    tried(test)


def test_a_body_is_read_up_to_its_bound_and_no_further() -> None:
    async def test(door: Door) -> None:
        for length, code in ((BODY_BYTES_MAX, 200), (BODY_BYTES_MAX + 1, 413)):
            body = body_of()[:-1] + b" " * (length - len(body_of())) + b"}"
            assert await door.post(body=body, signature=signature(body)) == code
        assert len(door.came) == 1

    tried(test)


def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await anyio.sleep(READ_S * 2)
        yield b"}"

    async def test(door: Door) -> None:
        began = anyio.current_time()
        url = delivery_address(BASE, attempt(), SECRET)
        answer = await door.client.post(url, content=slow(), headers=signed(b"{}"))
        assert (answer.status_code, anyio.current_time() - began) == (408, READ_S)

    tried(test)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"{", b"\xff"])
def test_a_signed_body_that_names_no_request_is_refused(body: bytes) -> None:
    async def test(door: Door) -> None:
        assert await door.post(body=body, signature=signature(body)) == 400
        assert door.came == []

    tried(test)


@pytest.mark.parametrize(
    ("answer", "code"),
    [(Receipt.TAKEN, 200), (Receipt.STRANGE, 409), (Receipt.LATER, 503), (Blocked("the disk is full"), 503)],
    ids=str,
)
def test_fal_is_told_whether_to_come_again(answer: Receipt | Exception, code: int) -> None:
    async def test(door: Door) -> None:
        door.answer = answer
        assert await door.post() == code

    tried(test)


def test_a_reason_is_said_once_and_without_a_secret() -> None:
    async def test(door: Door) -> None:
        for _ in range(3):
            await door.post(signature="00" * 64)
            await door.post(delivery_address(BASE, attempt(), "6" * 64))
        assert len(door.said) == 2
        assert not any("secret" in line or "=" in line for line in door.said)

    tried(test)


def test_a_person_who_tries_the_address_is_told_that_it_leads_here() -> None:
    async def test(door: Door) -> None:
        answer = await door.client.get(BASE)
        assert (answer.status_code, answer.text) == (200, "fal-batch receives fal's webhooks here\n")
        assert (await door.client.put(BASE)).status_code == 405

    tried(test)


# --- fal's keys ---


def test_the_keys_are_asked_for_once_a_day() -> None:
    async def test(door: Door) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(door.post)
        assert (len(door.came), door.key_calls) == (5, 1)
        await anyio.sleep(KEYS_LIFE_S - 10)
        assert (await door.post(), door.key_calls) == (200, 1)
        await anyio.sleep(10)
        assert (await door.post(), door.key_calls) == (200, 2)

    tried(test)


def test_a_key_that_fal_has_changed_is_asked_for() -> None:
    async def test(door: Door) -> None:
        assert await door.post() == 200
        new = Ed25519PrivateKey.generate()
        door.keys = [new]
        await anyio.sleep(REFETCH_S)
        assert (await door.post(signature=signature(body_of(), key=new)), door.key_calls) == (200, 2)
        assert await door.post() == 401, "the old one is gone"

    tried(test)


def test_forgeries_do_not_make_us_ask_for_keys_again_and_again() -> None:
    async def test(door: Door) -> None:
        for _ in range(100):
            assert await door.post(signature="00" * 64) == 401
            await anyio.sleep(1.2)
        assert door.key_calls == 2, "in two minutes"

    tried(test)


def test_while_the_keys_are_not_to_be_had_nothing_comes_in_and_fal_is_asked_to_come_again() -> None:
    async def test(door: Door) -> None:
        door.trouble = CallFailed("no answer", action=Action.REPEAT, cause="connect")
        assert [await door.post() for _ in range(3)] == [503, 503, 503]
        assert (door.came, door.key_calls) == ([], 1)
        door.trouble = None
        await anyio.sleep(REFETCH_S)
        assert (await door.post(), len(door.came)) == (200, 1)
        await anyio.sleep(KEYS_LIFE_S)
        door.trouble = CallFailed("no answer", action=Action.REPEAT, cause="connect")
        assert await door.post() == 503, "a day later the old ones are not believed any more"

    tried(test)


def test_an_attempt_is_told_by_its_number_and_its_job() -> None:
    """A copied ledger has the same secret and counts on from the same number."""
    address = delivery_address(BASE, replace(attempt(), job_key="a" * 32), SECRET)

    async def test(door: Door) -> None:
        assert await door.post(address) == 200
        assert (door.came[0][0].attempt_id, door.came[0][0].job_key) == (7, "a" * 32)

    tried(test)
