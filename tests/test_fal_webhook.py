"""The words of fal's webhooks: addresses that only this ledger can have made, signatures over exactly the body."""

from __future__ import annotations

import base64
import json
import urllib.parse
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from batch.fal.webhook import (
    Address,
    address_of,
    delivery_address,
    is_signed,
    parsed_delivery,
    parsed_keys,
    signed_of,
    without_secrets,
)
from batch.jobs import Attempt

ID = "019e55e3-1111-7000-8000-000000000001"
SECRET, KEY = "5" * 64, "0123456789abcdef" * 2

# The vector was made with a private key of the bytes 00 to 1f and checked by two implementations.
BODY = f'{{"request_id":"{ID}","gateway_request_id":"{ID}","status":"OK","payload":{{"seed":42}}}}'.encode()
JWK = {"kty": "OKP", "crv": "Ed25519", "x": "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg"}
HEADERS = {
    "x-fal-webhook-request-id": ID,
    "x-fal-webhook-user-id": "user_local",
    "x-fal-webhook-timestamp": "1795338000",
    "x-fal-webhook-signature": "5ed3eb75ad6191278140872b52ee940a9d48bff22e43bdd03a5050cd4ec6545a"
    "985b2bf4db67706e04029be594971e9f93cb271c951f5a854ce0e668926f2b0c",
}
KEYS = parsed_keys(json.dumps({"keys": [JWK]}).encode())


def attempt(number: int = 7, key: str = KEY) -> Attempt:
    return Attempt(
        id=number,
        job_id=1,
        job_key=key,
        number=1,
        endpoint="fal-ai/x",
        body={},
        price_micros=1,
        start_timeout_s=60.0,
        run_timeout_s=60.0,
        submitting_at=0.0,
    )


def read_back(url: str) -> Address:
    found = address_of(dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(url).query)))
    assert found is not None
    return found


# --- addresses ---


def test_an_address_names_its_attempt_and_is_known_again() -> None:
    url = delivery_address("https://hooks.example.com/fal", attempt(), SECRET)
    assert url.startswith("https://hooks.example.com/fal?attempt=7&job=")
    found = read_back(url)
    assert (found.attempt_id, found.job_key) == (7, KEY)
    assert found.is_ours(SECRET)
    assert SECRET not in url


@pytest.mark.parametrize(
    "forged",
    [
        {"attempt_id": 8},
        {"job_key": "f" * 32},
        {"secret": "0" * 64},
        {"secret": ""},
    ],
    ids=str,
)
def test_a_secret_holds_for_one_attempt_of_one_job_alone(forged: dict[str, Any]) -> None:
    good = read_back(delivery_address("https://h", attempt(), SECRET))
    assert not replace(good, **forged).is_ours(SECRET)


def test_another_ledger_made_other_secrets() -> None:
    assert not read_back(delivery_address("https://h", attempt(), SECRET)).is_ours("6" * 64)


@pytest.mark.parametrize("number", ["", "0", "-7", "7.0", " 7", "seven", "٧", "9" * 19, "0x7"])
def test_a_number_that_no_attempt_has_is_no_address(number: str) -> None:
    assert address_of({"attempt": number, "job": KEY, "secret": "0" * 64}) is None


def test_letters_that_no_secret_has_are_no_address() -> None:
    assert address_of({"attempt": "7", "job": KEY, "secret": "é"}) is None
    assert address_of({}) is None


def test_whatever_quotes_an_address_loses_its_secret() -> None:
    url = delivery_address("https://h", attempt(), SECRET)
    secret = read_back(url).secret
    once = urllib.parse.quote(url, safe="")
    for text in (url, once, urllib.parse.quote(once, safe=""), url[:-30], once.replace("%3D", "%3d")):
        shown = without_secrets(f"cannot deliver to {text}, sorry")
        assert secret[:8] not in shown
        assert shown.startswith("cannot deliver to https") and shown.endswith(", sorry") and KEY in shown


# --- signatures ---


def test_the_known_vector_is_signed() -> None:
    signed = signed_of(HEADERS)
    assert signed is not None
    assert is_signed(signed, BODY, KEYS)


def test_any_key_of_the_set_will_do() -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    signed = signed_of(HEADERS)
    assert signed is not None
    assert is_signed(signed, BODY, (other, *KEYS))
    assert not is_signed(signed, BODY, (other,))
    assert not is_signed(signed, BODY, ())


@pytest.mark.parametrize("body", [BODY + b" ", BODY.replace(b"42", b"43"), b"", BODY.replace(b":", b": ")])
def test_another_body_is_not_signed_however_alike(body: bytes) -> None:
    signed = signed_of(HEADERS)
    assert signed is not None
    assert not is_signed(signed, body, KEYS)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("request-id", "019e55e3-1111-7000-8000-000000000002"),
        ("user-id", "user_locaL"),
        ("timestamp", "1795338001"),
        ("signature", "00" * 64),
        ("signature", "00"),
    ],
)
def test_every_header_is_covered_by_the_signature(name: str, value: str) -> None:
    signed = signed_of({**HEADERS, f"x-fal-webhook-{name}": value})
    assert signed is not None
    assert not is_signed(signed, BODY, KEYS)


@pytest.mark.parametrize("name", ["request-id", "user-id", "timestamp", "signature"])
def test_a_missing_header_is_no_signature(name: str) -> None:
    assert signed_of({key: value for key, value in HEADERS.items() if not key.endswith(name)}) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [("timestamp", "soon"), ("timestamp", "-1"), ("timestamp", "01795338000"), ("signature", "xyz")],
)
def test_a_header_that_cannot_be_read_is_no_signature(name: str, value: str) -> None:
    assert signed_of({**HEADERS, f"x-fal-webhook-{name}": value}) is None


def test_only_keys_that_fal_signs_with_are_read() -> None:
    short = base64.urlsafe_b64encode(b"short").decode()
    listed = [JWK, {**JWK, "kty": "RSA"}, {**JWK, "crv": "X25519"}, {**JWK, "x": short}, {**JWK, "x": 7}, "key", None]
    assert parsed_keys(json.dumps({"keys": listed}).encode()) == KEYS
    assert len(KEYS[0]) == 32
    for body in (b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[{}]}', b"<html>"):
        assert parsed_keys(body) == ()


# --- bodies ---


def test_a_good_body_brings_its_result() -> None:
    found = parsed_delivery(BODY)
    assert found is not None
    assert (found.request_id, found.result) == (ID, {"seed": 42})


@pytest.mark.parametrize(
    "changed",
    [
        {"status": "ERROR", "error": "Invalid status code: 422", "payload": {"detail": []}},
        {"status": "ERROR", "payload": {"video": {"url": "https://x/y.mp4"}}},
        {"payload": None, "payload_error": "Response payload is not JSON serializable."},
        {"payload_error": "half of it"},
        {"payload": [1]},
        {"payload": "text"},
        {"status": None},
        {"status": "COMPLETED"},
    ],
    ids=str,
)
def test_anything_but_a_whole_good_result_is_left_to_the_result_call(changed: dict[str, Any]) -> None:
    found = parsed_delivery(json.dumps({**json.loads(BODY), **changed}).encode())
    assert found is not None
    assert (found.request_id, found.result) == (ID, None)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b'{"request_id":7}', b'{"request_id":""}', b"\xff\xfe"])
def test_a_body_that_names_no_request_is_no_delivery(body: bytes) -> None:
    assert parsed_delivery(body) is None
