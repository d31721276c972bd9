"""A picked row as a line that asks for one more of it: what was sent, with another seed. Pure.

What was sent is written out whole, so the sheet needs neither the campaign's `set`, `matrix` and `defaults` nor its
mapping of columns. The same pick always gives the same line: a sheet that was saved twice is paid for once.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from batch.endpoints import Endpoint
from batch.jobs import Row, derived_seed

__all__ = ["Again", "again_columns", "again_of", "column_of"]

OURS = ("id", "endpoint", "takes", "output")  # a field of such a name is written `input.id`

_AGAIN = re.compile(r"-again([0-9]{1,6})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What is different in the new line. Without a `seed` (the endpoint takes none) only a further take is another
    job: then `takes` is how many this row has already, and the lines of one `id` come together."""

    id: str
    seed: int | None
    takes: int | None


def column_of(field: str) -> str:
    """The column that fills a field."""
    return f"input.{field}" if field in OURS else field


def again_of(row: Row, endpoint: Endpoint, *, takes: int, taken: set[str]) -> Again:
    """The new line of a row that has so many takes. Its id is put among those `taken`."""
    if endpoint.seed_field is None:
        name = row.stem.removesuffix(f"-{row.job.take}") if takes > 1 else row.stem
        return Again(id=_next(name), seed=None, takes=takes)
    seen = row.job.input.get(endpoint.seed_field)
    seed = derived_seed(f"{row.job.key}:again", endpoint.seed_min, endpoint.seed_max)
    if seed == seen:
        seed = seed + 1 if seed < endpoint.seed_max else endpoint.seed_min
    id = _next(row.stem)
    while id in taken:
        id = _next(id)
    taken.add(id)
    return Again(id=id, seed=seed, takes=None)


def again_columns(
    columns: Sequence[str], carried: Collection[str], sent: Iterable[Mapping[str, str]], *, has_takes: bool
) -> tuple[str, ...]:
    """The header: the user's columns that are still needed in their order, then what they did not have.

    A column for a part of a field (`image_size.width`) has gone into that field's own.
    """
    fields = dict.fromkeys(name for texts in sent for name in texts)
    own = {name for name in carried if name.partition(".")[0] not in fields}
    kept = [name for name in columns if name in own or name in fields or name in ("id", "endpoint")]
    first = [] if "id" in kept else ["id"]
    return tuple(dict.fromkeys([*first, *kept, *fields, "endpoint", *(["takes"] if has_takes else [])]))


def _next(id: str) -> str:
    """`cat-again1` after `cat`, `cat-again2` after that."""
    found = _AGAIN.search(id)
    return f"{id}-again1" if found is None else f"{id[: found.start()]}-again{int(found[1]) + 1}"
