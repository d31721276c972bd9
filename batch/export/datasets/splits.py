"""Which part of a dataset a row belongs to. Pure: the same row is always in the same part, whatever rows come and
go."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection
from decimal import Decimal, InvalidOperation

from batch.errors import InputError
from batch.jobs import Row

__all__ = ["Splits", "by_column", "by_share", "one_split"]

Splits = Callable[[Row], str]
"""The name of the part that a row belongs to."""

NO_VALUE = "none"  # the part of rows whose cell is empty
SPLITS_MAX = 100  # more are values, no parts

_NAME = re.compile(r"\w+", re.ASCII)


def one_split(row: Row) -> str:
    """Everything is for training."""
    return "train"


def by_column(column: str, columns: Collection[str]) -> Splits:
    """Parts named after what stands in a column. InputError where there is none, or two values would be one part."""
    if column not in columns:
        raise InputError(f"--split-by: there is no column {column!r}; there are {', '.join(columns)}")
    values: dict[str, str] = {}

    def of(row: Row) -> str:
        text = row.cells.get(column, "").strip()
        name = re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or NO_VALUE
        first = values.setdefault(name, text)
        if first != text:
            raise InputError(
                f"{row.address} {column}: {text!r} and {first!r} would both be the part {name!r}; write one of them "
                "another way"
            )
        if len(values) > SPLITS_MAX:
            raise InputError(f"--split-by {column}: more than {SPLITS_MAX} different values; name a column with few")
        return name

    return of


def by_share(text: str) -> Splits:
    """Parts of about these sizes, `train=0.9,test=0.1`: the hash of a row's id decides, so that all takes and models of
    a row are in one part, and none moves when others come. InputError where the shares do not add up to 1."""
    shares: dict[str, Decimal] = {}
    for part in text.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        try:
            value = Decimal(share)
        except InvalidOperation:
            value = Decimal(0)
        if not _NAME.fullmatch(name) or not 0 < value <= 1 or name in shares:
            raise InputError(f"--split: {part.strip()!r} is not a part of its own with its share, such as train=0.9")
        shares[name] = value
    if sum(shares.values()) != 1:
        raise InputError(f"--split: the shares of {text} add up to {sum(shares.values())}, not to 1")

    def of(row: Row) -> str:
        place = int(hashlib.sha256(f"split:{row.id}".encode()).hexdigest()[:12], 16) / Decimal(16**12)
        reached = Decimal(0)
        for name, share in shares.items():
            reached += share
            if place < reached:
                return name
        raise AssertionError("the shares add up to 1")

    return of
