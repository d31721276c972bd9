"""Signatures of webhooks as fal makes them: Ed25519 over four lines, and the key set to check them with.

Imports nothing of the project; `cryptography`, an optional package, only when a key is used. Whoever checks a signature
does so with code of its own: written once for both sides, a mistake would go unseen.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
from collections.abc import Sequence

__all__ = ["SIGNATURE", "USER_ID", "can_sign", "jwks", "signature_headers"]

USER_ID = "user_local"
SIGNATURE = "X-Fal-Webhook-Signature"


def can_sign() -> bool:
    """Whether the optional package is there."""
    return importlib.util.find_spec("cryptography") is not None


def jwks(secrets: Sequence[bytes]) -> dict[str, list[dict[str, str]]]:
    """The public halves of these keys as a JSON Web Key Set."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    publics = [Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw() for secret in secrets]
    return {"keys": [{"kty": "OKP", "crv": "Ed25519", "x": _base64url(public)} for public in publics]}


def signature_headers(secret: bytes, request_id: str, body: bytes, now: float) -> dict[str, str]:
    """The four headers that let a receiver check who sent these bytes, and when."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    timestamp = str(int(now))
    message = "\n".join((request_id, USER_ID, timestamp, hashlib.sha256(body).hexdigest())).encode()
    return {
        "X-Fal-Webhook-Request-Id": request_id,
        "X-Fal-Webhook-User-Id": USER_ID,
        "X-Fal-Webhook-Timestamp": timestamp,
        SIGNATURE: Ed25519PrivateKey.from_private_bytes(secret).sign(message).hex(),
    }


def _base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
