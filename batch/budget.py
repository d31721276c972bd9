"""What an attempt counts in money, and whether the next one fits under the cap. Pure; integer micro-dollars.

An attempt's price is reserved when it is claimed and counts in full while it is open or in doubt: the estimate, or as
many times that as fal has counted at the most for another job of the endpoint. Its end settles it: what fal bills costs
its billable units times the price of one, or what is reserved where that is not known; a verdict that fal does not bill
releases it. As fal documents it, 5xx, a start timeout and what was never taken are free; a 422
is charged unless its billable units say 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

__all__ = ["BELIEVED_WITHIN", "Cost", "affordable", "fits", "reserve", "settled", "usd"]

DIGITS_MAX = 40  # of a figure in a header; a longer one is no quantity

BELIEVED_WITHIN = 3
"""By so many times fal's count may differ from the estimate: discounts and roundings. Units that are not what we take
them for (a video for a million tokens, minutes for seconds) are off by more; then the estimate counts."""

UNITS_BELIEVED_MAX = 1000
"""Without an estimate to compare with, so many units a job may have; a count of tokens where the price is that of a
million of them has hundreds of thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What an ended attempt cost, None where nobody knows; `is_told` when it is fal's own count, else our estimate."""

    micros: int | None
    is_told: bool = False


def fits(*, exposure_micros: int, price_micros: int | None, cap_micros: int | None) -> bool:
    """Whether one more attempt keeps settled + reserved + in doubt at or under the cap. An unknown price never fits."""
    if cap_micros is None:
        return True
    return price_micros is not None and exposure_micros + price_micros <= cap_micros


def reserve(price_micros: int | None, times: Fraction) -> int | None:
    """What is reserved for a job of this estimate where fal has counted up to `times` the estimate of others (1 or
    more): rounded up."""
    return None if price_micros is None else math.ceil(price_micros * times)


def affordable(prices_micros: Iterable[int | None], left_micros: int) -> int:
    """How many jobs of these prices, in this order, fit into what is left of a cap. The first that does not ends it."""
    count, used = 0, 0
    for price in prices_micros:
        if not fits(exposure_micros=used, price_micros=price, cap_micros=left_micros):
            return count
        count, used = count + 1, used + (price or 0)
    return count


def settled(
    *,
    price_micros: int | None,
    is_billed: bool,
    billable_units: str | None,
    unit_usd: str | None = None,
    reserved_micros: int | None = None,
) -> Cost:
    """What an ended attempt cost: nothing where fal bills nothing, else fal's units at `unit_usd` dollars each, where
    both are known and come near the estimate `price_micros`; else what is reserved for it (None: the estimate)."""
    reserved = price_micros if reserved_micros is None else reserved_micros
    units = _figure(billable_units)
    if not is_billed or units == 0:
        return Cost(micros=0, is_told=units == 0)
    price = _figure(unit_usd)
    if units is None or not price:
        return Cost(micros=reserved)
    told = int((units * price * 1_000_000).to_integral_value(ROUND_HALF_UP))
    if price_micros is None and units > UNITS_BELIEVED_MAX:
        return Cost(micros=None)
    if price_micros is not None and not price_micros <= told * BELIEVED_WITHIN <= price_micros * BELIEVED_WITHIN**2:
        return Cost(micros=reserved)
    return Cost(micros=told, is_told=True)


def usd(micros: int | None) -> str:
    """`$1.23` for people; four places below a dollar, so that small jobs do not all read $0.00."""
    if micros is None:
        return "unknown"
    return f"${micros / 1_000_000:,.2f}" if abs(micros) >= 1_000_000 or micros == 0 else f"${micros / 1_000_000:.4f}"


def _figure(text: str | None) -> Decimal | None:
    """A decimal number that is not below zero; None for anything else that a header may hold."""
    if text is None or len(text) > DIGITS_MAX:
        return None
    try:
        number = Decimal(text.strip())
    except ArithmeticError:
        return None
    return number if number.is_finite() and 0 <= number < 10**12 else None
