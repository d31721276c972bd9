"""The headers by which a caller says how long a file is kept and who may fetch it. Pure.

What cannot be read counts as nothing said, as at fal: a wish about files is no reason to refuse a paid call.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from batch.local.shelf import FORBID, HIDE, Lifecycle

__all__ = ["lifecycle_of"]

_HEADERS = ("x-fal-object-lifecycle-preference", "x-fal-object-lifecycle")


def lifecycle_of(headers: Mapping[str, str]) -> Lifecycle:
    """The wish in a call's headers. Rules of an ACL about single users have nobody to hold for here."""
    text = next((headers[name] for name in _HEADERS if name in headers), None)
    try:
        wish = json.loads(text) if text else None
    except ValueError:
        wish = None
    if not isinstance(wish, dict):
        return Lifecycle()
    acl = wish.get("initial_acl")
    decision = acl.get("default") if isinstance(acl, dict) else None
    return Lifecycle(
        lifetime_s=_positive(wish.get("expiration_duration_seconds")),
        acl=decision if decision in (FORBID, HIDE) else None,
    )


def _positive(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if 0 < value < math.inf else None
