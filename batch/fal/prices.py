"""fal's own price list, as it tells it to a key: what a unit of each endpoint costs, the account's discounts included.

What is read here is only parsed; which price goes, and what a job needs of the units, is decided elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from batch.fal.failures import Call, answer_failure
from batch.fal.wire import Wire

__all__ = ["ENDPOINTS_MAX", "ListedPrice", "listed_prices"]

ENDPOINTS_MAX = 50  # in one call (Platform API)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedPrice:
    """`amount` of `currency` for one `unit` of an endpoint. None where fal's answer is no such thing."""

    endpoint: str
    amount: Decimal | None
    unit: str
    currency: str


async def listed_prices(wire: Wire, endpoints: Sequence[str]) -> list[ListedPrice]:
    """What fal's list has of these endpoints, ENDPOINTS_MAX at the most. CallFailed when it is not told."""
    assert 0 < len(endpoints) <= ENDPOINTS_MAX, len(endpoints)
    answer = await wire.ask(
        Call.PRICES, "GET", f"{wire.hosts.api}/models/pricing", params={"endpoint_id": list(endpoints)}
    )
    body = _exact_json(answer.content) if answer.status_code == 200 else None
    if not isinstance(body, dict) or not isinstance(body.get("prices"), list):
        raise wire.safe_failure(answer_failure(Call.PRICES, answer, now=wire.clock()))
    return [_price(item) for item in body["prices"] if isinstance(item, dict)]


def _exact_json(content: bytes) -> Any:
    """JSON whose numbers are as they were written: a price is money, and no float."""
    try:
        return json.loads(content, parse_float=Decimal)
    except (ValueError, RecursionError):  # also what is no UTF-8
        return None


def _price(item: dict[str, Any]) -> ListedPrice:
    return ListedPrice(
        endpoint=_text(item.get("endpoint_id")),
        amount=_amount(item.get("unit_price")),
        unit=_text(item.get("unit")),
        currency=_text(item.get("currency")) or "USD",
    )


def _text(value: object) -> str:
    return value.strip()[:100] if isinstance(value, str) else ""


def _amount(value: object) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal, str)) or len(str(value)) > 40:
        return None
    try:
        amount = Decimal(value)
    except ArithmeticError:
        return None
    return amount if amount.is_finite() else None
