"""The word in the corner that says what a picture is: a preview. Laid over the planes of a frame or over an image.

Imports Pillow and numpy, so it is imported late. Of the project it imports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Mark", "mark_of_frame", "marked"]

MARK_TEXT = "preview"
GROUND, INK = 0.45, 0.85  # how much of the picture the ground and the letters cover
BLACK, WHITE = 16.0, 235.0  # of video

Plane = npt.NDArray[np.uint8]
Share = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Mark:
    """The word ready to be laid over one plane: where, how much of the picture stays (of 256), and what is added."""

    rows: slice
    columns: slice
    kept: npt.NDArray[np.uint16]
    added: npt.NDArray[np.uint16]

    def over(self, plane: Plane) -> None:
        """Write the word into the plane."""
        part = plane[self.rows, self.columns]
        part[:] = (part * self.kept + self.added) >> 8


@lru_cache(maxsize=32)
def mark_of_frame(width: int, height: int) -> tuple[Mark, ...]:
    """The mark for the Y, U and V planes of a frame: white letters on a dark ground, half see-through."""
    left, top, shade, cover, ink = _drawn(width, height)
    level = BLACK * shade * (1.0 - ink) + WHITE * INK * ink
    grey = cover[::2, ::2]
    chroma = _mark(left // 2, top // 2, grey, 128.0 * grey)
    return _mark(left, top, cover, level), chroma, chroma


def marked(image: Image.Image) -> Image.Image:
    """An RGB image with the mark in its lower right corner."""
    left, top, _, cover, ink = _drawn(*image.size)
    mask = Image.fromarray(np.rint(cover * 255).astype(np.uint8))
    word = Image.fromarray(np.rint(ink * INK / np.maximum(cover, 1e-6) * 255).astype(np.uint8)).convert("RGB")
    image.paste(word, (left, top), mask)
    return image


def _drawn(width: int, height: int) -> tuple[int, int, Share, Share, Share]:
    """Left and top of the mark, its ground, all that it covers, and its letters; as large as fits, never larger."""
    size = max(8, round(min(width, height) / 24))
    font = ImageFont.load_default(size)
    text_left, text_top, text_right, text_bottom = font.getbbox(MARK_TEXT)
    pad = size // 2
    # Even sizes and places, so that the half-sized chroma planes meet the same pixels.
    mark_width = (round(text_right - text_left) + 2 * pad + 1) // 2 * 2
    mark_height = (round(text_bottom - text_top) + 2 * pad + 1) // 2 * 2
    left, top = (max(0, side // 2 * 2) for side in (width - mark_width - size, height - mark_height - size))
    letters = Image.new("L", (mark_width, mark_height))
    ImageDraw.Draw(letters).text((pad - text_left, pad - text_top), MARK_TEXT, fill=255, font=font)
    ground = Image.new("L", (mark_width, mark_height))
    ImageDraw.Draw(ground).rounded_rectangle((0, 0, mark_width - 1, mark_height - 1), radius=pad, fill=255)
    fitting = (slice(0, max(0, height - top)), slice(0, max(0, width - left)))
    ink = np.asarray(letters).astype(np.float32)[fitting] / 255.0
    shade = np.asarray(ground).astype(np.float32)[fitting] / 255.0 * GROUND
    return left, top, shade, shade + (INK - shade) * ink, ink


def _mark(left: int, top: int, cover: Share, level: Share) -> Mark:
    kept = np.rint((1.0 - cover) * 256).astype(np.uint16)
    added = np.rint(level * 256).astype(np.uint16)
    rows, columns = cover.shape
    return Mark(slice(top, top + rows), slice(left, left + columns), kept, added)
