"""Where the camera of a preview looks: the move a prompt asks for, and the part of the picture each frame shows.

Pure arithmetic on fractions of the picture; imports nothing of the project, no imaging library. It knows no sizes
in pixels: `render` does.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DRIFT", "STATIC", "Motion", "View", "motion_of", "views"]

PAN_WINDOW = 0.80  # a pan or tilt shows this much of the picture, so that a fifth of it is there to travel over
ZOOM_WINDOW = 0.74  # the narrow end of a zoom
DRIFT_WINDOW = 0.90
STATIC_WINDOW = 0.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Motion:
    """What the camera does: `x` is -1 to the left and 1 to the right, `y` -1 up and 1 down, `zoom` 1 in and -1 out.

    It is the viewport that moves: when it goes left, things in the picture go right on the screen.
    """

    x: int = 0
    y: int = 0
    zoom: int = 0
    is_named: bool = True

    def __str__(self) -> str:
        if not self.is_named:
            return "camera drifts"
        words = [
            {-1: "pans left", 1: "pans right"}.get(self.x),
            {-1: "tilts up", 1: "tilts down"}.get(self.y),
            {-1: "zooms out", 1: "zooms in"}.get(self.zoom),
        ]
        return "camera " + (" and ".join(word for word in words if word) or "static")


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The part of the picture one frame shows: its left and top edge and its size, as fractions of the picture."""

    left: float
    top: float
    size: float


STATIC = Motion()
DRIFT = Motion(is_named=False)

_GAP = r"(?:[\s-]+(?:\w+[\s-]+){0,3}?)"  # "pans slowly to the left"
_MOVES: tuple[tuple[re.Pattern[str], Motion], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), motion)
    for pattern, motion in (
        (rf"\bpan(?:s|ned|ning)?{_GAP}left\b", Motion(x=-1)),
        (rf"\bpan(?:s|ned|ning)?{_GAP}right\b", Motion(x=1)),
        (rf"\btilt(?:s|ed|ing)?{_GAP}up(?:wards?)?\b", Motion(y=-1)),
        (rf"\btilt(?:s|ed|ing)?{_GAP}down(?:wards?)?\b", Motion(y=1)),
        (rf"\bzoom(?:s|ed|ing)?{_GAP}in\b", Motion(zoom=1)),
        (rf"\bzoom(?:s|ed|ing)?{_GAP}out\b", Motion(zoom=-1)),
        (rf"\bpush(?:es|ed|ing)?{_GAP}in\b", Motion(zoom=1)),
        (rf"\bpull(?:s|ed|ing)?{_GAP}(?:out|back|away)\b", Motion(zoom=-1)),
        (rf"\bdoll(?:y|ies|ied|ying){_GAP}(?:out|back|away)\b", Motion(zoom=-1)),
        (rf"\bdoll(?:y|ies|ied|ying)\b(?!{_GAP}(?:out|back|away)\b)", Motion(zoom=1)),
    )
)
_FIXED = re.compile(
    r"\b(?:static|fixed|locked[\s-]?off|stationary|motionless|still)\s+(?:camera|shot)\b"
    r"|\bcamera\s+(?:\w+\s+)?(?:static|fixed|still|stationary|motionless|locked)\b"
    r"|\bno\s+camera\s+(?:move|movement|motion)\b",
    re.IGNORECASE,
)


def motion_of(request: Mapping[str, Any]) -> Motion:
    """The move that an input asks for; `camera_fixed` beats the prompt, a named move beats the word "static"."""
    if request.get("camera_fixed") is True:
        return STATIC
    text = request.get("prompt")
    prompt = text if isinstance(text, str) else ""
    # Subjects move too ("a man pans gold, left alone"): what is said of the camera counts before the rest.
    _, named, about_camera = prompt.lower().rpartition("camera")
    for part in (about_camera if named else "", prompt):
        found = [motion for pattern, motion in _MOVES if pattern.search(part)]
        if found:
            return Motion(
                x=_sign(sum(motion.x for motion in found)),
                y=_sign(sum(motion.y for motion in found)),
                zoom=_sign(sum(motion.zoom for motion in found)),
            )
    return STATIC if _FIXED.search(prompt) else DRIFT


def views(motion: Motion, seed: int, frames: int) -> list[View]:
    """One view per frame. The seed chooses where the move starts, how far it goes and its height on the picture."""
    chance = random.Random(seed)
    size_from, size_to = _sizes(motion, chance)
    x_from, x_to = _travel(motion.x, motion, chance)
    y_from, y_to = _travel(motion.y, motion, chance)
    path = []
    for number in range(frames):
        moved = _eased(number / max(frames - 1, 1))
        size = size_from + (size_to - size_from) * moved
        room = 1.0 - size
        path.append(
            View(
                left=room * (x_from + (x_to - x_from) * moved),
                top=room * (y_from + (y_to - y_from) * moved),
                size=size,
            )
        )
    return path


def _sizes(motion: Motion, chance: random.Random) -> tuple[float, float]:
    if motion.zoom:
        wide, narrow = 1.0 - chance.uniform(0.0, 0.02), ZOOM_WINDOW + chance.uniform(0.0, 0.05)
        if motion.x or motion.y:  # room to travel from the first frame on
            wide -= 0.1
        return (wide, narrow) if motion.zoom > 0 else (narrow, wide)
    # Without a zoom the size stays the same throughout: a frame is then a mere shift of the one before.
    window = PAN_WINDOW if motion.x or motion.y else STATIC_WINDOW if motion.is_named else DRIFT_WINDOW
    size = window + chance.uniform(-0.02, 0.02)
    return size, size


def _travel(direction: int, motion: Motion, chance: random.Random) -> tuple[float, float]:
    """From where to where along one axis, as fractions of the room there is."""
    if direction:
        length = chance.uniform(0.8, 1.0)
        start = chance.uniform(0.0, 1.0 - length)
        return (start, start + length) if direction > 0 else (1.0 - start, 1.0 - start - length)
    if not motion.is_named:
        middle, reach = chance.uniform(0.4, 0.6), 0.35 * math.cos(chance.uniform(0.0, 2 * math.pi))
        return middle - reach, middle + reach
    resting = chance.uniform(0.3, 0.7)
    return resting, resting


def _eased(moment: float) -> float:
    """Half linear, half smooth: a camera starts and stops softly, and a two second clip still has no time to waste."""
    return 0.5 * moment + 0.5 * moment * moment * (3.0 - 2.0 * moment)


def _sign(number: int) -> int:
    return (number > 0) - (number < 0)
