"""What an attempt counts in money, and whether the next one fits under the cap. Pure; integer micro-dollars.

An attempt's price is reserved when it is claimed and counts in full while it is open or in doubt. Its end settles it:
a result, or a verdict that fal bills, keeps the price; one that fal does not bill releases it. As fal documents
it, 5xx, a start timeout and what was never taken are free; a 422 is charged unless its billable units say 0.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["affordable", "fits", "settled", "usd"]


def fits(*, exposure_micros: int, price_micros: int | None, cap_micros: int | None) -> bool:
    """Whether one more attempt keeps settled + reserved + in doubt at or under the cap. An unknown price never fits."""
    if cap_micros is None:
        return True
    return price_micros is not None and exposure_micros + price_micros <= cap_micros


def affordable(prices_micros: Iterable[int | None], left_micros: int) -> int:
    """How many jobs of these prices, in this order, fit into what is left of a cap. The first that does not ends it."""
    count, used = 0, 0
    for price in prices_micros:
        if not fits(exposure_micros=used, price_micros=price, cap_micros=left_micros):
            return count
        count, used = count + 1, used + (price or 0)
    return count


def settled(*, price_micros: int | None, is_billed: bool, billable_units: str | None) -> int | None:
    """What an ended attempt cost: its price, or 0 where fal bills nothing. None while the price is unknown."""
    if not is_billed or _is_zero(billable_units):
        return 0
    return price_micros


def usd(micros: int | None) -> str:
    """`$1.23` for people; four places below a dollar, so that small jobs do not all read $0.00."""
    if micros is None:
        return "unknown"
    return f"${micros / 1_000_000:,.2f}" if abs(micros) >= 1_000_000 or micros == 0 else f"${micros / 1_000_000:.4f}"


def _is_zero(units: str | None) -> bool:
    try:
        return units is not None and float(units) == 0.0
    except ValueError:
        return False
