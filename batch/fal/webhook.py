"""The words of fal's webhooks: the address of a delivery, what its signature covers, what its body says. No I/O.

A delivery is believed only if two things hold at once. Its address carries the secret of the attempt it is about, which
nobody but fal was told; and fal's signature covers its body. Neither is enough: an address may leak from a proxy's log,
and fal signs what it delivers for anybody's account. `cryptography`, an optional package, is imported when a signature
is checked.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import hmac
import importlib.util
import logging
import re
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from batch.errors import MissingPackage
from batch.fal.protocol import parsed_json, parsed_request_id
from batch.jobs import Attempt

__all__ = [
    "CLOCKS_APART_S_MAX",
    "Address",
    "Delivery",
    "Receipt",
    "Signed",
    "address_of",
    "delivery_address",
    "hide_secrets_in_logs",
    "is_signed",
    "need_cryptography",
    "parsed_delivery",
    "parsed_keys",
    "signed_of",
    "without_secrets",
]

CLOCKS_APART_S_MAX = 300.0
"""How far a delivery's timestamp may be from our clock (corrected to fal's): the five minutes of fal's webhook page."""

KEYS_MAX = 16  # of a key set; fal's has one, two while it changes them
_PARTS = ("Request-Id", "User-Id", "Timestamp", "Signature")
_HEADER = "x-fal-webhook-"
_ATTEMPT = re.compile(r"[1-9][0-9]{0,17}")
_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SECRET = re.compile(r"(secret(?:=|%(?:25)*3D))[0-9a-f]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """The attempt that a delivery's address names, and the secret it brings as proof."""

    attempt_id: int
    job_key: str
    secret: str

    def is_ours(self, ledger_secret: str) -> bool:
        """Whether this ledger made the address."""
        return hmac.compare_digest(_secret(ledger_secret, self.attempt_id, self.job_key), self.secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What fal's four headers say; `timestamp` in seconds since 1970."""

    request_id: str
    user_id: str
    timestamp: int
    signature: bytes

    def message(self, body: bytes) -> bytes:
        """The bytes that the signature covers, the raw body's hash among them."""
        parts = (self.request_id, self.user_id, str(self.timestamp), hashlib.sha256(body).hexdigest())
        return "\n".join(parts).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What a delivery's body says: that this request has ended. `result` is the model's output where the body holds it
    whole; without it the result is to be fetched, which also tells what went wrong with a request that failed.
    `user_id` is the account that fal delivers for, by the signed header."""

    request_id: str
    result: Mapping[str, Any] | None = None
    user_id: str | None = None


class Receipt(enum.Enum):
    """How a delivery that is believed is answered, as fal's retries go by it."""

    TAKEN = 200  # noted, or known already
    STRANGE = 409  # about a request that is not the attempt's
    LATER = 503  # it cannot be noted just now: fal delivers it again


def delivery_address(base: str, attempt: Attempt, ledger_secret: str) -> str:
    """Where fal is asked to deliver what becomes of the attempt: the user's own address with our query."""
    secret = _secret(ledger_secret, attempt.id, attempt.job_key)
    return f"{base}?{urllib.parse.urlencode({'attempt': attempt.id, 'job': attempt.job_key, 'secret': secret})}"


def address_of(query: Mapping[str, str]) -> Address | None:
    """The address that a query says, None when it is none of the kind that is made here."""
    attempt, job, secret = (query.get(name, "") for name in ("attempt", "job", "secret"))
    if not _ATTEMPT.fullmatch(attempt) or not (job.isascii() and secret.isascii()):
        return None
    return Address(attempt_id=int(attempt), job_key=job, secret=secret)


def signed_of(headers: Mapping[str, str]) -> Signed | None:
    """What the headers (by lower-case names) say; None when one is missing or cannot be read."""
    request_id, user_id, timestamp, signature = (headers.get(_HEADER + part.lower(), "") for part in _PARTS)
    if not request_id or not user_id or not _TIMESTAMP.fullmatch(timestamp):
        return None
    try:
        raw = bytes.fromhex(signature)
    except ValueError:
        return None
    if not raw or str(int(timestamp)) != timestamp:
        return None
    return Signed(request_id=request_id, user_id=user_id, timestamp=int(timestamp), signature=raw)


def is_signed(signed: Signed, body: bytes, keys: Iterable[bytes]) -> bool:
    """Whether one of the keys made the signature over exactly this body."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    message = signed.message(body)
    for key in keys:
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(signed.signature, message)
        except (InvalidSignature, ValueError):
            continue
        return True
    return False


def parsed_keys(content: bytes) -> tuple[bytes, ...]:
    """The public keys in a JWKS document: those of the kind that fal signs with. Empty where there is none."""
    body = parsed_json(content)
    listed = body.get("keys") if isinstance(body, dict) else None
    found = []
    for entry in listed[:KEYS_MAX] if isinstance(listed, list) else ():
        if not isinstance(entry, dict) or entry.get("kty") != "OKP" or entry.get("crv") != "Ed25519":
            continue
        text = entry.get("x")
        try:
            key = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if isinstance(text, str) else b""
        except (binascii.Error, ValueError):
            continue
        if len(key) == 32:
            found.append(key)
    return tuple(found)


def parsed_delivery(body: bytes) -> Delivery | None:
    """What a body says, None when it names no request.

    The result is taken only from a body that calls itself good and holds an object: with ERROR, a `payload_error` or
    anything odd it is left to the result call, whose answer decides.
    """
    said = parsed_json(body)
    request_id = parsed_request_id(said.get("request_id")) if isinstance(said, dict) else None
    if request_id is None:
        return None
    payload = said.get("payload")
    is_whole = said.get("status") == "OK" and not said.get("error") and not said.get("payload_error")
    return Delivery(request_id=request_id, result=payload if is_whole and isinstance(payload, dict) else None)


class _WithoutSecrets(logging.Filter):
    """httpx logs the address of each request at INFO, and a submit's holds that of its webhook."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_secrets(record.getMessage()), ()
        return True


def hide_secrets_in_logs() -> None:
    """From now on httpx's own log, which a script may have switched on, shows no secret of an address."""
    logger = logging.getLogger("httpx")
    if not any(isinstance(one, _WithoutSecrets) for one in logger.filters):
        logger.addFilter(_WithoutSecrets())


def without_secrets(text: str) -> str:
    """The text with the secret of every address in it blotted out, whatever quoted it."""
    return _SECRET.sub(r"\1[hidden]", text)


def need_cryptography() -> None:
    """InputError, naming the package, where the one that checks signatures is missing."""
    if importlib.util.find_spec("cryptography") is None:
        raise MissingPackage("webhooks need what checks fal's signatures,", "cryptography")


def _secret(ledger_secret: str, attempt_id: int, job_key: str) -> str:
    """One secret for each attempt, so that one address that leaks says nothing about another. The job's key is in it
    because a copied ledger counts its attempts on from the same number."""
    return hmac.new(ledger_secret.encode(), f"{attempt_id}:{job_key}".encode(), hashlib.sha256).hexdigest()
