"""Fields that a sheet fills part by part: `image_size.width` and `image_size.height` become one object. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Path", "assembled", "longest", "value_at"]

Path = tuple[str | int, ...]


def assembled(parts: Mapping[Path, Any], base: Any = None) -> tuple[Any, dict[Path, Path]]:
    """The value that these parts make, and where each of them stands in it.

    Paths lead from the value (`("width",)`, `(0, "path")`). Gaps in a list are closed: `[0]` may be empty, `[1]` not.
    An object in `base` (a default) keeps the parts that are not given; anything else there is replaced.
    """
    places: dict[Path, Path] = {}
    return _built(parts, base, (), (), places), places


def _built(parts: Mapping[Path, Any], base: Any, was: Path, now: Path, places: dict[Path, Path]) -> Any:
    if () in parts:
        places[was] = now
        return parts[()]
    steps = dict.fromkeys(path[0] for path in parts)
    inside = {step: {path[1:]: value for path, value in parts.items() if path[0] == step} for step in steps}
    if all(isinstance(step, int) for step in steps):
        ordered = sorted(steps, key=int)
        return [_built(inside[step], None, (*was, step), (*now, index), places) for index, step in enumerate(ordered)]
    made = dict(base) if isinstance(base, Mapping) else {}
    for step in steps:
        made[str(step)] = _built(inside[step], made.get(str(step)), (*was, step), (*now, str(step)), places)
    return made


def value_at(input: Mapping[str, Any], path: Path, default: Any = None) -> Any:
    """What stands at a path of an input; the default where nothing does."""
    found: Any = input
    for step in path:
        try:
            found = found[step]
        except (LookupError, TypeError):
            return default
    return found


def longest(path: Path, known: Mapping[Path, Any]) -> Path | None:
    """The nearest place at or above `path` that is known."""
    return next((path[:size] for size in range(len(path), 0, -1) if path[:size] in known), None)
